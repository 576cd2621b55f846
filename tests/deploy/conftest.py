"""What the tests of deploy/ share."""

import threading
from collections.abc import Iterator

import pytest

from tests.deploy.kibana import Kibana


@pytest.fixture
def kibana() -> Iterator[Kibana]:
    """Give a stand-in for Kibana that listens."""
    kibana = Kibana()
    thread = threading.Thread(target=kibana.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield kibana
    kibana.server.shutdown()
    thread.join()
    kibana.server.server_close()
