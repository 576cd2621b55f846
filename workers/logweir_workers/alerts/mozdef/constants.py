"""What the top of a Python file says in constants, such as MozDef's ``ALERTS``, without running it."""

from __future__ import annotations

import ast
import operator
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from logweir_workers.alerts.mozdef.modules import crontab, schedule


class Unreadable(Exception):
    """A value that nobody knows without running the file, and in which line it is."""

    def __init__(self, node: ast.AST) -> None:
        self.line = getattr(node, "lineno", 0)
        super().__init__(f"{ast.unparse(node)[:60]} is not read, as files of settings are not run; write the value")


_CALLS: Mapping[str, Callable[..., Any]] = {
    "crontab": crontab,
    "timedelta": timedelta,
    "schedule": schedule,
    "dict": dict,
    "list": list,
    "set": set,
    "int": int,
    "float": float,
    "str": str,
    "getenv": os.environ.get,
    "environ.get": os.environ.get,
}
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def constants_of(syntax: ast.Module) -> dict[str, Any]:
    """The values of names; Unreadable for one that is not known. Of a dictionary, each of its values by itself."""
    names: dict[str, Any] = {}
    for statement in syntax.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                names[name] = _of_dict(value, names) if isinstance(value, ast.Dict) else _tried(value, names)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)], value=value):
                if isinstance(names.get(name), dict):
                    names[name][_tried(key, names)] = _tried(value, names)
            case ast.Expr(
                value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="update"), args=[ast.Dict() as more])
            ):
                if isinstance(names.get(name), dict):
                    names[name].update(_of_dict(more, names))
    return names


def _of_dict(node: ast.Dict, names: Mapping[str, Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            inner = _tried(value, names)
            made.update(inner if isinstance(inner, dict) else {})
        else:
            made[_tried(key, names)] = _tried(value, names)
    return made


def _tried(node: ast.expr, names: Mapping[str, Any]) -> Any:
    try:
        return _value(node, names)
    except Unreadable as error:
        return error
    except Exception:  # noqa: BLE001 - whatever crontab, timedelta and the operators say of such values
        return Unreadable(node)


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names and not isinstance(names[name], Unreadable):
            return names[name]
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return {_value(key, names): _value(one, names) for key, one in zip(keys, values, strict=True) if key}
        case ast.List(elts=elements):
            return [_value(one, names) for one in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(one, names) for one in elements)
        case ast.Set(elts=elements):
            return {_value(one, names) for one in elements}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, names)
        case ast.BinOp(op=sign) if type(sign) in _OPERATORS:
            return _combined(node, names)
        case ast.Call(func=function) if (called := _CALLS.get(_called(function))) is not None:
            named = {one.arg: _value(one.value, names) for one in node.keywords if one.arg}
            return called(*(_value(one, names) for one in node.args), **named)
    raise Unreadable(node)


def _combined(node: ast.BinOp, names: Mapping[str, Any]) -> Any:
    one, other = _value(node.left, names), _value(node.right, names)
    # Of texts and lists, a product may be as large as memory.
    if isinstance(node.op, ast.Mult) and not all(isinstance(side, int | float | timedelta) for side in (one, other)):
        raise Unreadable(node)
    return _OPERATORS[type(node.op)](one, other)


def _called(function: ast.expr) -> str:
    """The name that is called, without the module before it; ``environ.get`` with what it is of."""
    name = ast.unparse(function)
    return "environ.get" if name.endswith("environ.get") else name.rpartition(".")[2]
