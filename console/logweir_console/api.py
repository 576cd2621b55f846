"""The API for programs: one table of routes, which serves them and describes them as OpenAPI.

A route's function gets the names in its path and what was sent, as texts, and returns what is answered as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request

from logweir import __version__
from logweir.errors import CHANGE_REFUSED, PARAMETER_BAD, SEARCH_TOO_SLOW, STORE_DOWN, LogweirError, Problem
from logweir_console import parameters
from logweir_console.guard import Guard

OPENAPI_PATH = "/api/openapi.json"
TEXT: Mapping[str, Any] = {"type": "string"}
_VALUE_SHOWN = 100

Call = Callable[[Mapping[str, str], Mapping[str, str]], dict[str, Any]]
"""Gets the names in the path, and the parameters or the members of the body. Raises LogweirError."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a URL, or a member of the object that is sent."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """As JSON Schema."""
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. A POST changes something: who may do that, Guard says."""

    method: str
    path: str
    """With names in braces, such as /api/alerts/{id}."""
    name: str
    """Of no other route."""
    summary: str
    answer: Mapping[str, Any]
    """What is answered, as JSON Schema."""
    call: Call
    parameters: Sequence[Parameter] = ()
    """Of a GET, in the URL; of a POST, the members of the object that is sent."""
    problems: Sequence[Problem] = ()
    """What else than every route's may be wrong."""

    @property
    def path_names(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def all_problems(self) -> tuple[Problem, ...]:
        own = (CHANGE_REFUSED,) if self.method == "POST" else ()
        return (PARAMETER_BAD, STORE_DOWN, SEARCH_TOO_SLOW, *own, *self.problems)


def add(
    app: Flask, routes: Sequence[Route], guard: Guard, *, answer: Callable[[dict[str, Any], int], Response]
) -> None:
    """Serve the routes, and their description. ``answer``: makes a JSON answer."""
    for route in routes:
        rule = route.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, f"api_{route.name}", _served(route, guard, answer), methods=[route.method])
    description = openapi(routes)

    @app.get(OPENAPI_PATH)
    def api_description() -> Response:
        return answer(description, 200)


def _served(route: Route, guard: Guard, answer: Callable[[dict[str, Any], int], Response]) -> Callable[..., Response]:
    def serve(**named: str) -> Response:
        if route.method == "GET":
            given = parameters.read(request.query_string, [one.name for one in route.parameters])
            return answer(route.call(named, given), 200)
        guard.require_program()
        return answer(route.call(named, _sent(route)), 200)

    return serve


def _sent(route: Route) -> dict[str, str]:
    """The members of the body. Raises LogweirError(PARAMETER_BAD) with the name of the one that is not understood."""
    if not request.is_json:
        raise LogweirError(
            PARAMETER_BAD, name="Content-Type", value=request.mimetype[:_VALUE_SHOWN], expected="application/json"
        )
    try:
        sent = request.get_json(silent=True)
    except RecursionError:
        sent = None
    if not isinstance(sent, dict):
        value = request.get_data(as_text=True)[:_VALUE_SHOWN]
        raise LogweirError(PARAMETER_BAD, name="body", value=value, expected="a JSON object")
    known = [one.name for one in route.parameters]
    for name, value in sent.items():
        if name not in known:
            expected = f"one of {', '.join(known)}"
            raise LogweirError(PARAMETER_BAD, name=_shown(name), value=_shown(value), expected=expected)
        if isinstance(value, str) and not _is_utf8(value):
            raise LogweirError(PARAMETER_BAD, name=name, value=_shown(value), expected="a text of whole characters")
        if not isinstance(value, str | None):
            raise LogweirError(PARAMETER_BAD, name=name, value=_shown(value), expected="a text")
    given = {name: value for name, value in sent.items() if value is not None}
    for one in route.parameters:
        if one.is_required and not given.get(one.name):
            raise LogweirError(PARAMETER_BAD, name=one.name, value="", expected=f"there: {one.description}".rstrip("."))
    return given


def _is_utf8(text: str) -> bool:
    """Whether no half of a surrogate pair is in it, which JSON may have and no store takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    return str(value)[:_VALUE_SHOWN].encode(errors="backslashreplace").decode()


# --- OpenAPI ------------------------------------------------------------------------------------------------------
_PROBLEM = {
    "type": "object",
    "description": "What is wrong, and what to do about it, as in RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "advice": TEXT,
        "code": TEXT,
    },
}


def openapi(routes: Sequence[Route]) -> dict[str, Any]:
    """The routes as an OpenAPI 3.1 document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    token = {"type": "http", "scheme": "bearer", "description": "The token in console.api_token."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "logweir",
            "version": __version__,
            "description": "Alerts and rules. Reading needs no token; changes do, but from this machine itself.",
        },
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM}, "securitySchemes": {"token": token}},
    }


def _operation(route: Route) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for problem in route.all_problems:
        by_status.setdefault(problem.status, []).append(problem.code)
    problem_content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": dict(TEXT)} for name in route.path_names
        ],
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": dict(route.answer)}}},
            **{
                str(status): {"description": ", ".join(codes), "content": problem_content}
                for status, codes in sorted(by_status.items())
            },
        },
    }
    if route.method == "GET":
        operation["parameters"] += [
            {
                "name": one.name,
                "in": "query",
                "description": one.description,
                "required": one.is_required,
                "schema": dict(one.schema),
            }
            for one in route.parameters
        ]
        return operation
    properties = {one.name: {**one.schema, "description": one.description} for one in route.parameters}
    required = [one.name for one in route.parameters if one.is_required]
    schema = {"type": "object", "required": required, "properties": properties}
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    # Without a token, where the console listens on its own machine alone and has none.
    operation["security"] = [{"token": []}, {}]
    return operation
