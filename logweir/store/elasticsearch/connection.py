"""One installation's indices on an Elasticsearch cluster: connected, made ready once, and what its answers mean."""

from __future__ import annotations

import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from elastic_transport import ConnectionError as NoConnection
from elastic_transport import (
    ConnectionTimeout,
    NodeConfig,
    ObjectApiResponse,
    TransportError,
    Urllib3HttpNode,
)
from elasticsearch import ApiError, Elasticsearch

from logweir.config import StoreSettings, shown_url
from logweir.errors import (
    QUERY_TOO_WIDE,
    SEARCH_ABANDONED,
    SEARCH_TOO_SLOW,
    SETTING_BAD,
    STORE_ABSENT,
    STORE_DOWN,
    STORE_REFUSES,
    LogweirError,
)
from logweir.store.documents import DocumentSet
from logweir.store.elasticsearch.mapping import LAYOUT, IndexNames, added_mappings, documents_template, templates
from logweir.store.port import Cancellation, Item, Written

log = logging.getLogger(__name__)

_CONNECTIONS = 20
_BULK_FILTER = "errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
_SHARDS_WAIT_S_MAX = 5.0
# A search that runs out of time says so itself, if it can: we wait so much longer.
_ANSWER_S = 1.0
_TEMPLATES_KNOWN_S = 1.0
"""For so long index templates that were seen are taken to be there still."""
_AGAIN = (408, 429, 500, 502, 503, 504)
# What the bulk says of a document although the index or the cluster is at fault: somebody will mend it.
_NOT_THE_DOCUMENT = (
    "cluster_block_exception",
    "index_closed_exception",
    "index_not_found_exception",
    "invalid_alias_name_exception",
    "invalid_index_template_exception",
    "validation_exception",
)


class Connection:
    """The client, the names of the installation's indices, and its errors as ours.

    It asks for nothing beyond the server's core: no data streams, ILM, ingest pipelines or scripts. Daily indices are
    made by the first document of a day, from the index template that ``prepare`` puts there.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self.names = IndexNames(settings.index_prefix)
        urls = _split(settings.url)
        self.url = ",".join(_address(url) for url in urls)
        self.client = _client(settings, urls)
        self._templates: set[str] = set()
        """Those that we have put there, and are there still."""
        self._templates_seen_s = 0.0
        self._is_there = False
        self._prepare_lock = threading.Lock()

    def prepare(self) -> None:
        wanted = templates(self._settings, self.names)
        with self.problems("its index templates"):
            for name, body in wanted.items():
                self._put_template(name, body)
        self._extend_days()
        self.make_indices({self.names.ledger, self.names.dead_letters})
        self._templates |= wanted.keys()

    def ensure_prepared(self) -> None:
        """Have the templates there before anything is written.

        An index that Elasticsearch makes without them would get guessed mappings: no search and no audit could read it.
        """
        self._look_for_templates()
        with self._prepare_lock:
            if self.names.ledger not in self._templates:
                self.prepare()

    def ensure_set_prepared(self, among: DocumentSet) -> None:
        """As ``ensure_prepared``, for the index of documents of our own."""
        self._look_for_templates()
        index = self.names.of_documents(among)
        with self._prepare_lock:
            if index not in self._templates:
                with self.problems("an index template"):
                    self._put_template(index, documents_template(self._settings, self.names, among))
                self.make_indices({index})
                self._templates.add(index)

    def _look_for_templates(self) -> None:
        """The server may have been replaced by an empty one while we run, or somebody have deleted what was ours."""
        now_s = time.monotonic()
        if not self._templates or now_s - self._templates_seen_s < _TEMPLATES_KNOWN_S:
            return
        with self.problems("its index templates"):
            found = self.client.options(ignore_status=404).indices.get_index_template(
                name=self.names.templates, filter_path="index_templates.name"
            )
        there = {template["name"] for template in found.body.get("index_templates", ())}
        self._templates_seen_s = now_s
        if gone := self._templates - there:
            log.warning("Elasticsearch has lost index templates (%s): they are made anew.", ", ".join(sorted(gone)))
            # All of them: of the daily indices' and the ledger's, neither is of use alone.
            self._templates = set()

    def _put_template(self, name: str, body: dict[str, Any]) -> None:
        """Put the template there, unless a newer program has put its own."""
        found = self.client.options(ignore_status=404).indices.get_index_template(
            name=name, filter_path="index_templates.index_template.version"
        )
        versions = [one.get("index_template", {}).get("version", 0) for one in found.body.get("index_templates", ())]
        if max(versions, default=0) <= body["version"]:
            self.client.indices.put_index_template(name=name, **body)

    def _extend_days(self) -> None:
        """Have the indices of days before map what the layout has got since: for what is written there from now on."""
        with self.problems("the mappings of its indices"):
            found = self.client.indices.get_mapping(
                index=self.names.days, expand_wildcards="open", filter_path="*.mappings._meta,*.mappings.dynamic"
            )
            for index, body in sorted(found.body.items()):
                is_older = body["mappings"].get("_meta", {}).get("layout", 1) < LAYOUT
                if is_older and self.names.day_of(index) is not None:
                    self._extend(index)

    def _extend(self, index: str) -> None:
        # It may be closed to changes, or gone since.
        changing = self.client.options(ignore_status=(400, 403, 404))
        answer = changing.indices.put_mapping(index=index, **added_mappings())
        if "error" in answer:
            log.warning("%s keeps its mapping, in which details have no kinds: %s", index, answer["error"]["reason"])

    def make_indices(self, indices: set[str]) -> None:
        """Make those that are not there: some clusters make none by themselves (action.auto_create_index)."""
        with self.problems("new indices"):
            for index in sorted(indices):
                self.client.options(ignore_status=400).indices.create(index=index)

    def bulk(self, operations: list[bytes], what: str) -> list[dict[str, Any]]:
        """Send operations in one request; gives what became of each: status and, if any, error."""
        if not operations:
            return []
        params = {"filter_path": _BULK_FILTER, "timeout": f"{max(1, int(self._settings.timeout_s * 800))}ms"}
        headers = {"content-type": "application/x-ndjson", "accept": "application/json"}
        try:
            with self.problems(what, passing=_is_too_large):
                body = self.client.perform_request(
                    "POST", "/_bulk", params=params, headers=headers, body=b"".join(operations)
                ).body
        except ApiError as error:
            if len(operations) == 1:
                return [{"status": 413, "error": {"type": "too_large", "reason": str(error)}}]
            half = len(operations) // 2
            return self.bulk(operations[:half], what) + self.bulk(operations[half:], what)
        return [next(iter(item.values())) for item in body["items"]]

    def item(self, answer: dict[str, Any]) -> Item:
        status, error = answer["status"], answer.get("error", {})
        if status < 300:
            return Item(Written.CREATED)
        reason = ": ".join(filter(None, [error.get("type"), error.get("reason")]))
        cause = error.get("caused_by", {}).get("reason")
        text = f"{reason} ({cause})" if cause else reason
        if error.get("type") == "security_exception":
            raise LogweirError(STORE_REFUSES, url=self.url, what="events", reason=text)
        if status in _AGAIN or error.get("type") in _NOT_THE_DOCUMENT:
            return Item(Written.AGAIN, error=text)
        return Item(Written.REFUSED, error=text)

    def done(self, operations: list[bytes], what: str, *, passing: tuple[int, ...]) -> list[dict[str, Any]]:
        """A bulk's answers, all of them successes or of a status that passes. Raises LogweirError as ``unwritten``."""
        answers = self.bulk(operations, what)
        for answer in answers:
            if answer["status"] >= 300 and answer["status"] not in passing:
                raise self.unwritten(answer, what)
        return answers

    def unwritten(self, answer: dict[str, Any], what: str) -> LogweirError:
        item = self.item(answer)
        if item.written is Written.AGAIN:
            return LogweirError(STORE_DOWN, url=self.url, reason=item.error)
        return LogweirError(STORE_REFUSES, url=self.url, what=what, reason=item.error)

    def got(self, what: str, **wanted: Any) -> list[dict[str, Any]]:
        """What an mget answers, for each document. Raises LogweirError(STORE_DOWN) for one that cannot be read."""
        with self.problems(what):
            documents: list[dict[str, Any]] = self.client.mget(**wanted)["docs"]
        for document in documents:
            error = document.get("error")
            if error and error["type"] != "index_not_found_exception":
                raise LogweirError(STORE_DOWN, url=self.url, reason=error["reason"])
        return documents

    def searched(
        self, *, request_timeout_s: float | None = None, is_partial_good: bool = False, **parameters: Any
    ) -> ObjectApiResponse[Any]:
        """The whole answer; waits a little for shards that are not there yet, as those of an index just made.

        ``is_partial_good``: what the server has found until its ``timeout``, from the shards that it has.
        """
        client = self.client if request_timeout_s is None else self.client.options(request_timeout=request_timeout_s)
        deadline_s = time.monotonic() + _SHARDS_WAIT_S_MAX
        while True:
            try:
                return client.search(
                    **parameters,
                    allow_partial_search_results=is_partial_good,
                    ignore_unavailable=True,
                    allow_no_indices=True,
                )
            except ApiError as error:
                if error.status_code != 503 or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    @contextmanager
    def searching(
        self, cancellation: Cancellation | None, timeout_s: float | None = None
    ) -> Iterator[Callable[..., ObjectApiResponse[Any]]]:
        """``searched``, within store.search_timeout_s for all calls together, and only until it is cancelled.

        ``timeout_s``: instead of that time; then what was found in it is good, too.
        Raises LogweirError: SEARCH_TOO_SLOW, SEARCH_ABANDONED, QUERY_TOO_WIDE.
        """
        is_partial_good = timeout_s is not None
        timeout_s = self._settings.search_timeout_s if timeout_s is None else timeout_s
        end_s = time.monotonic() + timeout_s

        def search(**parameters: Any) -> ObjectApiResponse[Any]:
            left_s = end_s - time.monotonic()
            with suppress(ConnectionTimeout):
                # The server looks at its clock while it collects hits, but not while it prepares a query; when nobody
                # listens any more, it stops in either case.
                timeout = f"{int(left_s * 1000)}ms"
                if left_s > 0.001:
                    answer = self.searched(
                        request_timeout_s=left_s + _ANSWER_S,
                        is_partial_good=is_partial_good,
                        timeout=timeout,
                        **parameters,
                    )
                    if is_partial_good or not answer["timed_out"]:
                        return answer
            raise LogweirError(SEARCH_TOO_SLOW, timeout_s=timeout_s)

        _Node.waiting.cancellation = cancellation
        try:
            yield search
        except ApiError as error:
            if reason := _is_too_wide(error):
                raise LogweirError(QUERY_TOO_WIDE, reason=reason) from error
            if not _is_out_of_time(error):
                raise
            raise LogweirError(SEARCH_TOO_SLOW, timeout_s=timeout_s) from error
        finally:
            _Node.waiting.cancellation = None

    def require_prepared(self) -> None:
        if self._is_there:
            return
        with self.problems("its ledger"):
            try:
                self.client.search(index=self.names.ledger, size=0, track_total_hits=False)
            except ApiError as error:
                if error.status_code not in (403, 404):
                    raise
                # 403: who may read events alone cannot know.
                if error.status_code == 404:
                    where = f"{self.url}, with names that begin with {self.names.ledger}"
                    raise LogweirError(STORE_ABSENT, url=where) from error
        self._is_there = True

    def close(self) -> None:
        self.client.close()

    @contextmanager
    def problems(self, what: str, passing: Callable[[ApiError], bool] | None = None) -> Iterator[None]:
        """STORE_DOWN when nobody answers or the server is overloaded, STORE_REFUSES when it will not do ``what``.

        An error for which ``passing`` is true is left to the caller.
        """
        try:
            yield
        except TransportError as error:
            raise LogweirError(STORE_DOWN, url=self.url, reason=_reason(error)) from error
        except ApiError as error:
            if passing is not None and passing(error):
                raise
            if error.status_code in _AGAIN or _error_type(error) == "cluster_block_exception":
                raise LogweirError(STORE_DOWN, url=self.url, reason=_api_reason(error)) from error
            raise LogweirError(STORE_REFUSES, url=self.url, what=what, reason=_api_reason(error)) from error


class _Waiting(threading.local):
    """On whose word the search of this thread stops."""

    cancellation: Cancellation | None = None


class _Node(Urllib3HttpNode):
    """A server, whose answer is waited for until the thread's search is cancelled.

    Then the connection is closed, which is how Elasticsearch learns that it may stop.
    """

    waiting = _Waiting()

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        plain: Any = self.pool.ConnectionCls

        class Connection(plain):  # type: ignore[misc]
            def getresponse(self) -> Any:
                cancellation = _Node.waiting.cancellation
                if cancellation is None:
                    return super().getresponse()
                with cancellation.stopping(partial(_shut, self.sock)):
                    if cancellation.is_cancelled:
                        raise LogweirError(SEARCH_ABANDONED)
                    return super().getresponse()

        self.pool.ConnectionCls = Connection

    def perform_request(self, *arguments: Any, **named: Any) -> Any:
        cancellation = self.waiting.cancellation
        if cancellation is None:
            return self._answer(*arguments, **named)
        try:
            if not cancellation.is_cancelled:
                return self._answer(*arguments, **named)
        except TransportError:
            if not cancellation.is_cancelled:
                raise
        # Not an error of the transport's, or it would take the server for dead.
        raise LogweirError(SEARCH_ABANDONED)

    def _answer(self, *arguments: Any, **named: Any) -> Any:
        """Elasticsearch's own. What stands before it may answer 200 as well, such as with a page that says sorry."""
        answer = super().perform_request(*arguments, **named)
        if answer.meta.status < 400 and answer.meta.headers.get("x-elastic-product") != "Elasticsearch":
            raise NoConnection(f"what answers {answer.meta.status} there is not Elasticsearch")
        return answer


def _shut(sock: socket.socket) -> None:
    """End the connection under whoever reads from it."""
    with suppress(OSError):  # It has just ended by itself.
        # Not a TLS socket's own, which would first take apart what the reader is using.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _client(settings: StoreSettings, urls: list[SplitResult]) -> Elasticsearch:
    # What it logs (retries, dead nodes), our own errors say.
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    secure = any(url.scheme == "https" for url in urls)
    options: dict[str, Any] = {"ssl_context": _ssl_context(settings)} if secure else {}
    username = settings.username or unquote(urls[0].username or "")
    if settings.api_key.get_secret_value():
        options["api_key"] = settings.api_key.get_secret_value()
    elif username:
        password = settings.password.get_secret_value() or unquote(urls[0].password or "")
        options["basic_auth"] = (username, password)
    return Elasticsearch(
        [_address(url) for url in urls],
        node_class=_Node,
        request_timeout=settings.timeout_s,
        connections_per_node=_CONNECTIONS,
        max_retries=len(urls),
        retry_on_status=(),
        retry_on_timeout=False,
        **options,
    )


def _ssl_context(settings: StoreSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except OSError as error:  # ssl.SSLError is one too
        raise LogweirError(
            SETTING_BAD,
            where="The configuration",
            name="store.ca_file",
            value=settings.ca_file,
            reason=f"the certificates cannot be read ({error})",
        ) from error


def _split(text: str) -> list[SplitResult]:
    """The URLs of ``store.url``. Raises LogweirError(SETTING_BAD)."""
    try:
        urls = [urlsplit(url.strip()) for url in text.split(",")]
        good = all(url.hostname and url.port != 0 and url.scheme in ("http", "https") for url in urls)
    except ValueError:  # such as a port that is no number
        good = False
    if not good:
        raise LogweirError(
            SETTING_BAD,
            where="The configuration",
            name="store.url",
            value=shown_url(text),
            reason="each part must read http[s]://host:port, with user and password percent-encoded if they are in it",
        )
    return urls


def _address(url: SplitResult) -> str:
    """The URL without credentials, with its port."""
    host = url.hostname or ""
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}:{url.port or 9200}{url.path.rstrip('/')}"


def _reason(error: TransportError) -> str:
    """The innermost cause in few words: "connection refused" rather than the layers around it."""
    text = str(error.errors[-1] if error.errors else error.message)
    found = re.search(r"(\[Errno [^]]*\] [^')]+|certificate verify failed[^)(]*|timed out)", text)
    return found[1].strip() if found else text


def _is_too_large(error: ApiError) -> bool:
    """Whether the request is beyond what the server will ever take: by HTTP, or by its memory for requests."""
    if error.status_code == 413:
        return True
    sizes = re.search(r"coordinating_operation_bytes=(\d+), max_coordinating_bytes=(\d+)", str(error.body))
    return error.status_code == 429 and sizes is not None and int(sizes[1]) > int(sizes[2])


def _is_too_wide(error: ApiError) -> str:
    """What a query asks too much of, in words; empty when that is not the error."""
    if "too many terms" in str(error.body):
        return "more words begin like the last one than it looks for behind another word"
    return "the regular expression is too complex" if "Determinizing automaton" in str(error.body) else ""


def _is_out_of_time(error: ApiError) -> bool:
    """Whether a search was stopped by its own ``timeout``: without partial results, that is an error."""
    return any(text in str(error.body) for text in ("Time exceeded", "search_timeout", "task_cancelled"))


def _error_type(error: ApiError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    detail = body.get("error")
    return str(detail.get("type")) if isinstance(detail, dict) else ""


def _api_reason(error: ApiError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    detail = body.get("error")
    causes = [*detail.get("root_cause", []), detail] if isinstance(detail, dict) else [{}]
    reason = causes[0].get("reason")
    return f"{error.status_code} {reason or error.message}"
