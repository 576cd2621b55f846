"""A stand-in for Kibana, which is published in no package that this machine could run."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Kibana:
    """As much of Kibana's HTTP API as the script uses, and what was posted to it: path, headers (lower case), body."""

    def __init__(self) -> None:
        self.unavailable = 0
        self.refuse = 0
        self.import_answer: dict[str, Any] = {"success": True, "successCount": 2}
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        kibana = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = kibana.refuse or (503 if kibana.unavailable else 200)
                kibana.unavailable = max(0, kibana.unavailable - 1)
                self.answer(status, {"status": {"overall": {"level": "available"}}})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kibana.posted.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.answer(200, kibana.import_answer if "_import" in self.path else {"acknowledged": True})

            def answer(self, status: int, content: dict[str, Any]) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
