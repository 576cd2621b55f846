"""Give Kibana the data view and the saved search of saved-objects.ndjson; harmless when repeated.

    python setup.py saved-objects.ndjson

KIBANA_URL says where (empty: there is no Kibana, nothing is done). KIBANA_API_KEY, or KIBANA_USERNAME and
KIBANA_PASSWORD, when it asks for them; KIBANA_CA_FILE for a certificate of one's own authority.
LOGWEIR_STORE_INDEX_PREFIX is the setting: what the names of the installation's indices begin with.
Waits up to KIBANA_WAIT_S (600) seconds for Kibana. Standard library only.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

DATA_VIEW = "logweir-events"
_BOUNDARY = "logweir-saved-objects"


class Kibana:
    """Kibana's HTTP API at ``url``."""

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        self._url = url.rstrip("/")
        self._headers = {"kbn-xsrf": "logweir"}
        if key := environment.get("KIBANA_API_KEY"):
            self._headers["Authorization"] = f"ApiKey {key}"
        elif user := environment.get("KIBANA_USERNAME"):
            pair = f"{user}:{environment.get('KIBANA_PASSWORD', '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        self._tls = ssl.create_default_context(cafile=environment.get("KIBANA_CA_FILE") or None)

    def call(self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json") -> Any:
        """Send one request; return the decoded answer. Raises OSError; HTTPError, one of these, for 4xx and 5xx."""
        request = urllib.request.Request(self._url + path, data=body, method=method, headers=self._headers)  # noqa: S310
        if body is not None:
            request.add_header("Content-Type", content_type)
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def wait(self, wait_s_max: float) -> None:
        """Return when Kibana says that it is available. Raises OSError, the last one, when it takes longer."""
        deadline = time.monotonic() + wait_s_max
        while True:
            try:
                self.call("GET", "/api/status")
                return
            except OSError as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403)
                if refused or time.monotonic() > deadline:
                    raise
            time.sleep(min(2.0, wait_s_max / 10))


def prefixed(objects: bytes, prefix: str) -> bytes:
    """The saved objects with the data view on the events whose alias begins with ``prefix``."""
    if not prefix:
        return objects
    rows = [json.loads(line) for line in objects.splitlines()]
    for row in rows:
        if row["id"] == DATA_VIEW:
            row["attributes"]["title"] = prefix + row["attributes"]["title"]
    return "\n".join(json.dumps(row) for row in rows).encode()


def set_up(kibana: Kibana, objects: bytes) -> None:
    """Import the objects over what is there, and make ours the default data view unless there is one."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="saved-objects.ndjson"\r\n'
    body = f"{head}Content-Type: application/ndjson\r\n\r\n".encode() + objects + f"\r\n--{_BOUNDARY}--\r\n".encode()
    answer = kibana.call(
        "POST",
        "/api/saved_objects/_import?overwrite=true",
        body,
        content_type=f"multipart/form-data; boundary={_BOUNDARY}",
    )
    if not answer.get("success"):
        raise SystemExit(f"Kibana did not take the saved objects: {json.dumps(answer.get('errors'))}")
    default = json.dumps({"data_view_id": DATA_VIEW, "force": False}).encode()
    kibana.call("POST", "/api/data_views/default", default)


def main(arguments: list[str], environment: dict[str, str]) -> int:
    url = environment.get("KIBANA_URL", "")
    if not url:
        print("KIBANA_URL is empty: there is no Kibana to set up.")
        return 0
    kibana = Kibana(url, environment)
    try:
        kibana.wait(float(environment.get("KIBANA_WAIT_S") or 600))
        objects = prefixed(Path(arguments[0]).read_bytes(), environment.get("LOGWEIR_STORE_INDEX_PREFIX", ""))
        set_up(kibana, objects)
    except urllib.error.HTTPError as error:
        print(f"{url} answers {error.code}: {error.read(2000).decode(errors='replace')}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{url} cannot be reached: {error}", file=sys.stderr)
        return 1
    print(f"{url} has the data view and the saved search of logweir.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], dict(os.environ)))
