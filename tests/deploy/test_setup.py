"""What sets the compose file's other services up: the certificate, Kibana's objects."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from logweir.event import FIELD_BY_NAME
from logweir.store.elasticsearch.mapping import IndexNames
from tests.deploy.compose import ROOT
from tests.deploy.kibana import Kibana

CERTIFICATE = ROOT / "deploy/nginx/certificate.sh"
OBJECTS = ROOT / "deploy/kibana/saved-objects.ndjson"


def test_certificate_is_made_once_for_its_name(tmp_path: Path) -> None:
    """The first start makes a certificate for the name and for localhost; the next one leaves it as it is."""
    first = _certificate(tmp_path, "logs.example.com")
    made = (tmp_path / "tls.crt").read_bytes()
    second = _certificate(tmp_path, "other.example.com")

    assert (first.returncode, second.returncode) == (0, 0)
    assert (tmp_path / "tls.crt").read_bytes() == made
    assert "DNS:logs.example.com, DNS:localhost, IP Address:127.0.0.1" in _certificate_text(tmp_path)
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tls.crt", "tls.key"]


@pytest.mark.parametrize("name", ["192.0.2.7", "2001:db8::7"])
def test_certificate_for_an_address_names_it_as_one(tmp_path: Path, name: str) -> None:
    """An address stands in the certificate as an address: as a host name no client would accept it."""
    _certificate(tmp_path, name)

    assert "IP Address:" + ("192.0.2.7" if "." in name else "2001:DB8:0:0:0:0:0:7") in _certificate_text(tmp_path)


def test_half_a_certificate_is_refused_and_kept(tmp_path: Path) -> None:
    """A key without its certificate is a mistake of the operator's: say so, and overwrite nothing."""
    (tmp_path / "tls.key").write_text("mine")

    done = _certificate(tmp_path, "localhost")

    assert done.returncode == 1
    assert "only one of tls.crt and tls.key" in done.stderr
    assert (tmp_path / "tls.key").read_text() == "mine"


def test_kibana_gets_its_objects_once_it_is_up(kibana: Kibana) -> None:
    """While Kibana says 503 the script waits; then it imports the file's objects and sets the default data view."""
    kibana.unavailable = 2

    done = _set_up(kibana.url, KIBANA_API_KEY="secret")

    assert done.returncode == 0, done.stderr
    (import_path, import_headers, import_body), (default_path, _, default_body) = kibana.posted
    assert import_path == "/api/saved_objects/_import?overwrite=true"
    assert import_headers["kbn-xsrf"]
    assert import_headers["authorization"] == "ApiKey secret"
    assert import_headers["content-type"].startswith("multipart/form-data; boundary=")
    assert OBJECTS.read_bytes() in import_body
    assert default_path == "/api/data_views/default"
    assert json.loads(default_body)["data_view_id"] in OBJECTS.read_text()


def test_kibana_that_refuses_the_key_is_not_waited_for(kibana: Kibana) -> None:
    """401 will not get better by waiting: the script ends with 1 and says what Kibana answered."""
    kibana.refuse = 401

    done = _set_up(kibana.url)

    assert done.returncode == 1
    assert "401" in done.stderr
    assert kibana.posted == []


def test_kibana_that_refuses_the_objects_fails_the_script(kibana: Kibana) -> None:
    """Kibana answers 200 with success false when it cannot take an object: that is a failure with its words."""
    kibana.import_answer = {"success": False, "errors": [{"id": "logweir-events", "error": {"type": "conflict"}}]}

    done = _set_up(kibana.url)

    assert done.returncode == 1
    assert "conflict" in done.stderr


def test_no_kibana_is_nothing_to_do() -> None:
    """With KIBANA_URL empty the service ends well at once."""
    assert _set_up("").returncode == 0


def test_kibana_that_never_comes_up_ends_the_wait() -> None:
    """After KIBANA_WAIT_S the script ends with 1 and says what it could not reach."""
    done = _set_up("http://127.0.0.1:9", KIBANA_WAIT_S="0.5")

    assert done.returncode == 1
    assert "http://127.0.0.1:9 cannot be reached" in done.stderr


def test_saved_objects_show_fields_that_events_have() -> None:
    """The data view is of the alias and by a date field; the saved search's columns are fields, and it has the view."""
    view, search = [json.loads(line) for line in OBJECTS.read_text(encoding="utf-8").splitlines()]

    assert view["attributes"]["title"] == IndexNames().events
    assert FIELD_BY_NAME[view["attributes"]["timeFieldName"]].kind == "date"
    assert set(search["attributes"]["columns"]) <= set(FIELD_BY_NAME)
    assert [reference["id"] for reference in search["references"]] == [view["id"]]
    assert (
        json.loads(search["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])["indexRefName"]
        == (search["references"][0]["name"])
    )


def _set_up(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "deploy/kibana/setup.py"), str(OBJECTS)]
    variables = {"KIBANA_URL": url, "KIBANA_WAIT_S": "10", **environment}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)


def _certificate(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(CERTIFICATE), str(folder), name], capture_output=True, text=True, timeout=60)


def _certificate_text(folder: Path) -> str:
    command = ["openssl", "x509", "-in", str(folder / "tls.crt"), "-noout", "-ext", "subjectAltName"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
