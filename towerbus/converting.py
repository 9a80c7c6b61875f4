"""What stands in a file becomes a struct; a mistake becomes an error: its key, what it got, what is wanted. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from towerbus.errors import ConfigError

MAX_SHOWN = 80
"""Characters of a value that an error quotes, at the most."""

_AT = re.compile(r"^(.*?)(?: - at `\$(.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")
_EXPECTED = re.compile(r"Expected (.*), got (.*)")
_ENUM = re.compile(r"Invalid enum value .*")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_KINDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_FORMS = (
    msgspec.inspect.StructType,
    msgspec.inspect.ListType,
    msgspec.inspect.VarTupleType,
    msgspec.inspect.EnumType,
    msgspec.inspect.LiteralType,
)
_SECRET = ("url", "secret", "password", "dsn")

T = TypeVar("T")


def convert(value: object, kind: type[T], where: str) -> T:
    """Make what a file says into what is wanted.

    Args:
        value: Tables, lists and plain values.
        kind: A struct, or a collection of structs.
        where: The file and the key, for the error.

    Raises:
        ConfigError: It is not right.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error), value, kind, where)) from error


def is_secret(key: str) -> bool:
    """Whether the value of a key is never quoted."""
    return any(word in key for word in _SECRET)


def shown(key: str, value: object) -> str:
    """A value as an error quotes it."""
    if value is None:
        return "nothing"
    if is_secret(key):
        return "a value that is not shown"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _explained(text: str, value: Any, kind: Any, where: str) -> str:
    """Msgspec's words, as ours."""
    found = _AT.match(text)
    words, path = (found[1], found[2] or "") if found is not None else (text, "")
    of = _wanted_at(msgspec.inspect.type_info(kind), path)
    where, value, key = _followed(path, value, where)
    if unknown := _UNKNOWN.match(words):
        return f"{where}.{unknown[1]}: there is no such key; there are {', '.join(_keys(of))}"
    if missing := _MISSING.match(words):
        return f"{where}.{missing[1]}: is missing; it must be given"
    if expected := _EXPECTED.match(words):
        return f"{where}: got {shown(key, value)}, wanted {_wanted(expected[1])}"
    if _ENUM.match(words) and (known := _known(of)):
        return f"{where}: got {shown(key, value)}, wanted {', '.join(known)}"
    if isinstance(value, dict):
        return f"{where}: {words}"
    return f"{where}: got {shown(key, value)}: {words}"


def _wanted(expected: str) -> str:
    kinds = [_KINDS.get(kind, kind) for kind in expected.replace("`", "").split(" | ")]
    return " or ".join(kinds)


def _followed(path: str, value: Any, where: str) -> tuple[str, Any, str]:
    """Follow msgspec's path to a value: its place, the value, and its key."""
    key = ""
    for name, index in _STEP.findall(path):
        try:
            value = value[name] if name else value[int(index)]
        except (LookupError, TypeError, ValueError):
            value = None
        key = name or key
        where += f".{name}" if name else f"[{index}]"
    return where, value, key


def _wanted_at(kind: msgspec.inspect.Type, path: str) -> msgspec.inspect.Type | None:
    """Follow msgspec's path to what is wanted there; None where that has several forms."""
    at: msgspec.inspect.Type | None = kind
    for name, _ in _STEP.findall(path):
        at = next(_below(at, name), None)
    return next(_forms(at), None)


def _below(kind: msgspec.inspect.Type | None, name: str) -> Iterator[msgspec.inspect.Type]:
    for form in _forms(kind):
        if isinstance(form, msgspec.inspect.StructType):
            yield from (field.type for field in form.fields if field.encode_name == name)
        elif isinstance(form, msgspec.inspect.ListType | msgspec.inspect.VarTupleType) and not name:
            yield form.item_type


def _forms(kind: msgspec.inspect.Type | None) -> Iterator[msgspec.inspect.Type]:
    """Of what a value may be, what has parts or can be counted up."""
    if isinstance(kind, msgspec.inspect.UnionType):
        for each in kind.types:
            yield from _forms(each)
    elif isinstance(kind, _FORMS):
        yield kind


def _known(kind: msgspec.inspect.Type | None) -> list[str]:
    """The values that there are, where they can be counted up."""
    if isinstance(kind, msgspec.inspect.EnumType):
        return [str(each.value) for each in kind.cls]
    return [str(each) for each in kind.values] if isinstance(kind, msgspec.inspect.LiteralType) else []


def _keys(kind: msgspec.inspect.Type | None) -> tuple[str, ...]:
    return tuple(field.encode_name for field in kind.fields) if isinstance(kind, msgspec.inspect.StructType) else ()
