"""What the load generator has to know of a server, as options of its command line."""

from __future__ import annotations

from collections.abc import Mapping

Word = str | bytes | int
"""A template (bytes, or text that is ASCII), a number, or True for an option without a value."""

EVENTS = '["@@@@@@"<<<,"@@@@@@">>>]'
TOWER: Mapping[str, Word] = {
    "first": '{"groups":{"jobs":["status_changed"]}}',
    "first_own": '{"groups":{"jobs":["status_changed"],"job_events":' + EVENTS + "}}",
    "first_idle": '{"groups":{"job_events":["@@@@@@"]}}',
    "next_own": '{"groups":{"jobs":["status_changed"],"job_events":["@@@@@@"]}}',
    "replies": 1,
    "next_replies": 1,
}
"""How a client of Tower's protocol says what it wants: all of it each time, and one reply."""

TOWERBUS_V1: Mapping[str, Word] = {
    "framing": "towerbus.v1",
    "back": '{"groups":{"jobs":["status_changed"]},"since":"^^^^^^"}',
    "back_replies": 2,
}
"""What is otherwise in the dialect towerbus.v1: who comes back says where it was, and waits for the reply and for the
notice that it has all."""

LINES: Mapping[str, Word] = {
    "pub_prefix": "jobs-status_changed ",
    "pub_suffix": "\n",
    "own_prefix": "job_events-@@@@@@ ",
    "own_suffix": "\n",
}
"""How the servers that stand in `servers/` are given events: a line with the topic and the text."""


def head(port: int, target: str, *headers: str) -> str:
    """The beginning of a handshake, for the load generator to complete."""
    return "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers))


def options(words: Mapping[str, Word]) -> list[str]:
    """The command line that says all that."""
    line = []
    for name, word in words.items():
        option = f"--{name.replace('_', '-')}"
        if word is True:
            line.append(option)
        elif isinstance(word, int):
            line += [option, str(word)]
        else:
            line += [option, escaped(word.encode("ascii") if isinstance(word, str) else word)]
    return line


def escaped(template: bytes) -> str:
    """Bytes as `unescaped` in load/texts.c reads them."""
    return "".join(
        "\\\\" if byte == ord("\\") else chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in template
    )
