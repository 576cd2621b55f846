"""useragent: the browser, the system and the device that a user agent names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from logweir.config import WorkerSettings
from logweir_workers.enrich import Enrich, Event, configured_enrichment
from logweir_workers.normalise.fields import Context

LENGTH_MAX = 1000
"""A longer user agent is not looked at."""

_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0"
_PIXEL = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Mobile Safari"


_PACKAGE = "ua_parser_rs"


@configured_enrichment(
    package=_PACKAGE,
    adds=("details",),
    examples=(
        (
            {"details": {"useragent": _FIREFOX}},
            {"details": {"useragent": _FIREFOX, "browser": "Firefox", "browserversion": "147", "os": "Linux"}},
        ),
        (
            {"details": {"useragent": _PIXEL, "os": "mine"}},
            {
                "details": {
                    "useragent": _PIXEL,
                    "os": "mine",
                    "browser": "Chrome",
                    "browserversion": "120",
                    "osversion": "14",
                    "device": "Pixel 8",
                }
            },
        ),
        ({"details": {"useragent": "nothing that anybody knows"}}, {}),
        ({"details": {"useragent": 7}}, {}),
        ({}, {}),
    ),
)
def useragent(_settings: WorkerSettings) -> Enrich:
    """By ua-parser's list. Without that package (``logweir[useragent]``), events stay without."""
    if importlib.util.find_spec(_PACKAGE) is None:
        return _nothing
    return _UserAgents()


def _nothing(_event: Event, _context: Context) -> None:
    """ua-parser is not installed."""


class _UserAgents:
    def __init__(self) -> None:
        self._about = lru_cache(maxsize=8192)(_look_up)

    def __call__(self, event: Event, _context: Context) -> None:
        details = event.get("details")
        if details is None:
            return
        text = details.get("useragent")
        if type(text) is str and len(text) <= LENGTH_MAX:
            for name, value in self._about(text):
                details.setdefault(name, value)


def _look_up(text: str) -> tuple[tuple[str, str], ...]:
    found = _parser()(text)
    named = (
        ("browser", found.user_agent and found.user_agent.family),
        ("browserversion", found.user_agent and found.user_agent.major),
        ("os", found.os and found.os.family),
        ("osversion", found.os and found.os.major),
        ("device", found.device and found.device.family),
    )
    return tuple((name, value) for name, value in named if value)


@cache
def _parser() -> Callable[[str], Any]:
    """The list takes a second to load: at the first user agent, not at the start."""
    from ua_parser import Domain, Parser
    from ua_parser.loaders import load_lazy_builtins
    from ua_parser.regex import Resolver

    parser: Any = Parser(Resolver(load_lazy_builtins()))
    return lambda text: parser(text, Domain.ALL)
