"""Run the door: events in over HTTP, answered once the queue has them."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
from functools import partial
from pathlib import Path

from logweir.clock import now_us
from logweir.config import MEBIBYTE, Settings, settings_of
from logweir.errors import FILE_UNREADABLE, SETTING_BAD, LogweirError
from logweir.keys.file import read_keys
from logweir.metrics import registry
from logweir.process.lifetime import die_with_parent, listener
from logweir.process.logs import configure_logging
from logweir.queue import open_queue
from logweir.receipt import secret_of
from logweir_ingest.access.auth import Authenticator
from logweir_ingest.access.proxies import SourceAddress
from logweir_ingest.app import IngestApp
from logweir_ingest.delivery.enqueue import open_enqueuer
from logweir_ingest.records.batcher import Post, RecordBatcher
from logweir_ingest.records.canary import Canary
from logweir_ingest.request.limits import Limits
from logweir_ingest.serving.master import BACKLOG, Application
from logweir_ingest.serving.process import Served, certificate_of
from logweir_ingest.spool.generation import Generation
from logweir_ingest.tally import Tally


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", dest="set:ingest.address", metavar="ADDRESS", help="listen here (127.0.0.1)")
    parser.add_argument("--port", dest="set:ingest.port", metavar="PORT", help="listen here (8080); 0 takes a free one")
    parser.add_argument("--processes", dest="set:ingest.processes", metavar="N", help="how many serve the port (1)")
    tls_cert_help = "serve HTTPS with this certificate, in PEM with its chain"
    parser.add_argument("--tls-cert", dest="set:ingest.tls_cert_file", metavar="FILE", help=tls_cert_help)
    tls_key_help = "the certificate's key, when it is not in the same file"
    parser.add_argument("--tls-key", dest="set:ingest.tls_key_file", metavar="FILE", help=tls_key_help)
    parser.add_argument(
        "--interface",
        choices=("asgi", "wsgi"),
        default="asgi",
        help="asgi: the hot endpoints bypass Flask; wsgi: Flask serves all of them, under the same limits",
    )
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when the process that started this one ends"
    )


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.die_with_parent:
        die_with_parent(signal.SIGTERM)
    configure_logging("ingest", settings.log)
    # It would end us until gunicorn listens to it, when it reloads.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    generation = Generation(os.urandom(4).hex())
    served = _checked(settings, generation)
    # Beside the keys: what all doors of an installation share, where the data folder is each machine's own.
    secret = _receipt_secret(settings.keys_path.parent)
    opened = listener("ingest", settings.ingest.address, settings.ingest.port, backlog=BACKLOG)
    _prepare_metrics(settings.data_dir, opened.getsockname()[1])

    def renew() -> Served:
        nonlocal generation
        generation = generation.next()
        return _checked(_reloadable(settings_of(arguments), before=settings), generation)

    open_here = partial(open_app, receipt_secret=secret)
    Application(served, opened, open_here, renew=renew, interface=arguments.interface).run()
    return 0


def _checked(settings: Settings, generation: Generation) -> Served:
    """What is to be served by. Raises LogweirError for what cannot work, before anything is started."""
    read_keys(settings.keys_path)
    Limits.of(settings)
    SourceAddress(settings.ingest.trusted_proxies)
    if settings.ingest.processes > 1 and settings.queue.url.startswith("sqlite:"):
        raise LogweirError(
            SETTING_BAD,
            where="The configuration",
            name="ingest.processes",
            value=settings.ingest.processes,
            reason="the embedded queue is for one ingest process; use Kafka for more",
        )
    share_bytes = settings.ingest.spool_size_bytes_max // settings.ingest.processes
    if share_bytes < settings.ingest.decompressed_size_bytes_max + MEBIBYTE:
        raise LogweirError(
            SETTING_BAD,
            where="The configuration",
            name="ingest.spool_size_bytes_max",
            value=settings.ingest.spool_size_bytes_max,
            reason="each process's share must have room for one request (ingest.decompressed_size_bytes_max) and 1 MiB",
        )
    return Served(settings, certificate_of(settings.ingest), generation)


def _reloadable(settings: Settings, *, before: Settings) -> Settings:
    """Raises LogweirError(SETTING_BAD) when something changed that a running master cannot change."""
    for name, value, was in (
        ("data_dir", settings.data_dir, before.data_dir),
        ("ingest.keys_file", settings.keys_path, before.keys_path),
        ("ingest.address", settings.ingest.address, before.ingest.address),
        ("ingest.port", settings.ingest.port, before.ingest.port),
    ):
        if value != was:
            reason = f"it was {was} at the start, and only a restart changes it"
            raise LogweirError(SETTING_BAD, where="The configuration", name=name, value=value, reason=reason)
    return settings


def _receipt_secret(folder: Path) -> bytes:
    try:
        return secret_of(folder)
    except OSError as error:
        raise LogweirError(FILE_UNREADABLE, path=folder, reason=error.strerror or error) from error


def _prepare_metrics(data_dir: Path, port: int) -> None:
    """An empty folder in which the processes of this port keep their counts."""
    folder = data_dir / "metrics" / f"ingest-{port}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LogweirError(FILE_UNREADABLE, path=folder, reason=error.strerror or error) from error
    registry.share(folder)


def open_app(served: Served, post: Post, soon: Post, *, receipt_secret: bytes) -> IngestApp:
    """An app that works: keys read, queue connecting in the background, deadlines and markers looked after."""
    settings = served.settings
    tally = Tally()
    ingest_epoch = os.urandom(16)
    queue = open_queue(settings.queue, group=settings.worker.group)
    enqueuer = open_enqueuer(settings, queue, ingest_epoch=ingest_epoch, generation=served.generation)
    canary = Canary(enqueuer, ingest_epoch=ingest_epoch, clock=now_us, interval_s=settings.ingest.canary_interval_s)

    def ticked() -> None:
        tally.flush()
        canary.tick()

    batcher = RecordBatcher(
        enqueuer,
        ingest_epoch=ingest_epoch,
        clock=now_us,
        answer_timeout_s=settings.ingest.queue_timeout_s + settings.ingest.spool_timeout_s,
        record_size_bytes_max=settings.queue.record_size_bytes_max,
        pending_size_bytes_max=settings.queue.buffer_size_bytes_max,
        post=post,
        soon=soon,
        ticked=ticked,
        keys_with_numbers=settings.accounting.event_fields_by_key,
    )
    keys = Authenticator.of(settings)
    app = IngestApp(
        settings, keys=keys, batcher=batcher, clock=now_us, receipt_secret=receipt_secret, tally=tally, post=post
    )
    batcher.start()
    keys.start()
    return app
