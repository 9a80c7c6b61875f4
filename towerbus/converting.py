"""What stands in a file becomes a struct; mistakes become an error: their keys, what they got, what is wanted. Pure."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec

from towerbus.errors import ConfigError

MAX_SHOWN = 80
"""Characters of a value that an error quotes, at the most."""

_WORDS = re.compile(r"^(.*?)(?: - at `\$.*`)?$", re.DOTALL)
_EXPECTED = re.compile(r"Expected (.*), got (.*)")
_KINDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_SECRET = ("url", "secret", "password", "dsn")

T = TypeVar("T")


def convert(value: object, kind: type[T], where: str) -> T:
    """Make what a file says into what is wanted.

    Args:
        value: Tables, lists and plain values.
        kind: A struct, or a collection of structs.
        where: The file and the key, for the error.

    Raises:
        ConfigError: It is not right; the text has one line for each mistake. What a struct's `__post_init__` refuses is
            told once all of its keys are right by themselves.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError("\n".join(_mistakes(value, kind, where, ""))) from error


def refuse(mistakes: Iterable[str]) -> None:
    """Let a struct's `__post_init__` tell all that it refuses.

    Raises:
        ValueError: There is something; the text has one line for each.
    """
    if text := "\n".join(mistakes):
        raise ValueError(text)


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


def _mistakes(value: Any, kind: Any, where: str, key: str) -> Iterator[str]:
    """All mistakes: those of the parts, or that of the whole."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        found = _WORDS.match(str(error))
        words = found[1] if found is not None else str(error)
        yield from list(_of_parts(value, kind, where, key)) or _explained(words, value, kind, where, key)


def _of_parts(value: Any, kind: Any, where: str, key: str) -> Iterator[str]:
    for form in get_args(kind) if get_origin(kind) in {Union, types.UnionType} else (kind,):
        of, parts = get_origin(form), get_args(form)
        if isinstance(value, dict) and isinstance(form, type) and issubclass(form, msgspec.Struct):
            yield from _of_fields(value, form, where)
        elif isinstance(value, dict) and of is dict:
            for name, part in value.items():
                yield from _mistakes(part, parts[1], f"{where}.{name}", name)
        elif isinstance(value, list) and of in {list, tuple}:
            for number, part in enumerate(value):
                yield from _mistakes(part, parts[0], f"{where}[{number}]", key)


def _of_fields(value: dict[str, Any], form: type[msgspec.Struct], where: str) -> Iterator[str]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(form)}
    for name, part in value.items():
        if name in fields:
            yield from _mistakes(part, fields[name].type, f"{where}.{name}", name)
        else:
            yield f"{where}.{name}: there is no such key; there are {', '.join(fields)}"
    for name, field in fields.items():
        if field.required and name not in value:
            yield f"{where}.{name}: is missing; it must be given"


def _explained(words: str, value: Any, kind: Any, where: str, key: str) -> Iterator[str]:
    """Msgspec's words on a value, or a struct's own, as ours."""
    if expected := _EXPECTED.match(words):
        yield f"{where}: got {shown(key, value)}, wanted {_wanted(expected[1])}"
    elif words.startswith("Invalid enum value"):
        yield f"{where}: got {shown(key, value)}, wanted {', '.join(_known(kind))}"
    elif isinstance(value, dict):
        yield from (f"{where}: {line}" for line in words.splitlines())
    else:
        yield f"{where}: got {shown(key, value)}: {words}"


def _wanted(expected: str) -> str:
    kinds = [_KINDS.get(kind, kind) for kind in expected.replace("`", "").split(" | ")]
    return " or ".join(kinds)


def _known(kind: Any) -> list[str]:
    """The values that there are of an enumeration or a literal."""
    found = msgspec.inspect.type_info(kind)
    forms = found.types if isinstance(found, msgspec.inspect.UnionType) else (found,)
    known: list[str] = []
    for form in forms:
        if isinstance(form, msgspec.inspect.EnumType):
            known += [str(each.value) for each in form.cls]
        elif isinstance(form, msgspec.inspect.LiteralType):
            known += [str(each) for each in form.values]
    return known
