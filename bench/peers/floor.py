"""The floor under any door that is served as ours is: take the events apart, and answer. It keeps nothing."""

import gzip
from typing import Any, ClassVar

import msgspec
from uvicorn_worker import UvicornWorker

_events = msgspec.json.Decoder(list[msgspec.Raw])
_event = msgspec.json.Decoder(msgspec.Raw)
_START = {"type": "http.response.start", "status": 202}


class Worker(UvicornWorker):
    """With as little around the application as uvicorn can do with."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
        "date_header": False,
    }


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI."""
    if scope["type"] != "http":
        for _ in ("startup", "shutdown"):
            await send({"type": (await receive())["type"] + ".complete"})
        return
    message = await receive()
    body = message["body"]
    while message["more_body"]:
        message = await receive()
        body += message["body"]
    if (b"content-encoding", b"gzip") in scope["headers"]:
        body = gzip.decompress(body)
    count = len(_events.decode(body)) if body.startswith(b"[") else 1 if _event.decode(body) else 0
    answer = b'{"accepted":%d}' % count
    await send({**_START, "headers": [(b"content-length", b"%d" % len(answer))]})
    await send({"type": "http.response.body", "body": answer})
