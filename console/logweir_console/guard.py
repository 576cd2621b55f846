"""Who may change alerts and rules, while nobody signs in: this machine itself, or whoever has the token."""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from flask import request

from logweir.config import ConsoleSettings
from logweir.errors import CHANGE_REFUSED, LogweirError


class Guard:
    """Who may change anything. A page of another site must not have a browser do it."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        # In each form, and in no other site's: until the console starts again.
        self.form_token = secrets.token_urlsafe(24)

    @property
    def is_local(self) -> bool:
        """Whether it is asked by its machine's own name, and listens there alone: not through a proxy."""
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname
        return not self._settings.is_open and name in ("127.0.0.1", "localhost", "::1")

    def require_form(self, token: str) -> None:
        if not self.is_local:
            raise LogweirError(CHANGE_REFUSED, reason="it comes from beyond this machine, and nobody signs in yet")
        self._require_own_origin()
        if not hmac.compare_digest(token.encode(), self.form_token.encode()):
            raise LogweirError(CHANGE_REFUSED, reason="the page is older than the console that runs now")

    def require_program(self) -> None:
        wanted = self._settings.api_token.get_secret_value()
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if wanted and scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), wanted.encode()):
            return
        if wanted or not self.is_local:
            raise LogweirError(CHANGE_REFUSED, reason="it has no token, or another one than console.api_token")
        self._require_own_origin()
        # A form of another site cannot send this without being asked first whether it may.
        if request.mimetype != "application/json":
            reason = (
                f"its Content-Type is {request.mimetype or 'missing'}, and without a token has to be application/json"
            )
            advice = "Send it with the header Content-Type: application/json."
            raise LogweirError(CHANGE_REFUSED, reason=reason, advice=advice)

    def _require_own_origin(self) -> None:
        origin = request.headers.get("Origin")
        is_own = origin is None or urlsplit(origin).netloc == request.headers.get("Host")
        if not is_own or request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise LogweirError(CHANGE_REFUSED, reason="it comes from another site's page")
