"""What one process of the port serves, and by what: settings and certificate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config

from logweir.config import IngestSettings, Settings
from logweir.http.handshake import Tls
from logweir.http.server import HttpServer
from logweir.http.shares import Shares
from logweir.http.worker import limit
from logweir.metrics import registry
from logweir_ingest.app import IngestApp
from logweir_ingest.asgi import AsgiApp
from logweir_ingest.records.batcher import Post
from logweir_ingest.spool.generation import Generation
from logweir_ingest.wsgi import make_wsgi

if TYPE_CHECKING:
    from logweir.http.tls import ServedCertificate

_LOOK_EVERY_S = 1.0
_EXEMPT = (b"/healthz", b"/readyz", b"/metrics")


@dataclass(frozen=True, slots=True)
class Served:
    """``certificate`` is None for plain HTTP."""

    settings: Settings
    certificate: ServedCertificate | None
    generation: Generation


def certificate_of(settings: IngestSettings) -> ServedCertificate | None:
    """What the settings name, ready to be served. Raises LogweirError: SETTING_BAD, and those of tls.load."""
    if settings.tls_cert_file is None and settings.tls_key_file is None:
        return None
    # The library behind it costs a tenth of a second, which a door without TLS need not spend.
    from logweir.http.tls import Pair, ServedCertificate

    return ServedCertificate(Pair.of(settings))


def make_asgi(settings: Settings, open_app: Callable[[Post, Post], IngestApp], *, interface: str) -> AsgiApp:
    """The ASGI application. Call once in a process: it sets the process's limits."""
    registry.prepare(("logweir_ingest", "logweir_canary_sent"))
    ingest = settings.ingest
    rejected = registry.get("logweir_ingest_rejected_requests_total")

    def refused(code: str) -> None:
        rejected.labels(code).inc()

    shares = Shares(
        without_key_max=ingest.connections_without_key_max,
        per_address_max=ingest.connections_without_key_per_address_max,
        per_key_max=ingest.connections_per_key_max,
        ended=refused,
    )
    limit(ingest, section="ingest", exempt=_EXEMPT, refused=refused, shares=shares)
    return AsgiApp(
        open_app,
        make_wsgi,
        stop_timeout_s=ingest.stop_timeout_s / 2,
        wsgi_threads=ingest.requests_max if interface == "wsgi" else 0,
    )


def make_server(served: Served, config: Config, *, wait_s_max: float, now_serving: Callable[[], object]) -> HttpServer:
    """The server of the AsgiApp that ``config`` names; waits so long for the queue before it takes a connection."""
    asgi: Any = config.app
    ingest = served.settings.ingest
    tls = None
    if served.certificate is not None:
        failed = registry.get("logweir_ingest_tls_handshakes_failed_total")
        tls = Tls(
            served.certificate.context,
            ingest.tls_handshake_timeout_s,
            failed=lambda reason: failed.labels(reason).inc(),
        )
        threading.Thread(target=_follow, args=(served.certificate,), name="certificate", daemon=True).start()
    return HttpServer(
        config,
        stop_timeout_s=ingest.stop_timeout_s,
        tls=tls,
        wait_for=lambda: asgi.app.is_connected,
        wait_s_max=wait_s_max,
        now_serving=now_serving,
        told_to_stop=lambda: asgi.app.become_unready(),
    )


def _follow(certificate: ServedCertificate) -> None:
    """Take what the files hold, and say how long it is good. What there is to say in the log, the master says."""
    expires_s = registry.get("logweir_ingest_tls_certificate_expires_seconds").labels(str(certificate.pair.certificate))
    while True:
        certificate.refresh(says=False)
        expires_s.set(certificate.expires_s())
        time.sleep(_LOOK_EVERY_S)
