"""Servers that somebody else started, given by their address: they can be used, not started, stopped or killed."""

import json
import urllib.request
from functools import cached_property
from typing import Any


class RunningKafka:
    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap


class RunningElasticsearch:
    """An Elasticsearch without security at `url`."""

    security = False

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @cached_property
    def version(self) -> str:
        """The version that it says it is, "9.2.4". Raises OSError when nothing answers."""
        nodes = self.request("GET", "/_nodes/_local?filter_path=nodes.*.version")["nodes"]
        return str(next(iter(nodes.values()))["version"])

    def request(self, method: str, path: str, body: object = None, *, wait_s_max: float = 30.0) -> Any:
        """Send one request; return the decoded JSON. Raises urllib.error.HTTPError for 4xx and 5xx."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=wait_s_max) as answer:
            return json.loads(answer.read() or b"null")
