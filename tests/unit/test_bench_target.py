"""Addresses, and what is said at the door."""

import base64
import hashlib

import pytest

from towerbus.bench import target as module
from towerbus.bench.target import check_answer, target
from towerbus.errors import ConfigError, TowerbusError


def made(url="ws://127.0.0.1:8051/websocket/?a=b", *, token="t", clients=10, sources=(), compression=False):
    return target(url, token, "tower", clients, tls=None, sources=sources, compression=compression)


def test_a_handshake_and_its_answer():
    request, accept = made().request()
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /websocket/?a=b HTTP/1.1"
    assert "Host: 127.0.0.1:8051" in lines
    assert "Authorization: Bearer t" in lines
    assert "Sec-WebSocket-Protocol: tower" in lines
    key = next(line for line in lines if line.startswith("Sec-WebSocket-Key")).partition(": ")[2]
    assert accept == base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    assert made().request()[0] != request
    head = b"HTTP/1.1 101 Switching\r\nsec-websocket-protocol: tower\r\nSEC-WEBSOCKET-ACCEPT: " + accept
    check_answer(head, accept, "tower")
    for bad, part in (
        (head.replace(b"101", b"404"), "refused the handshake: HTTP/1.1 404"),
        (head.replace(accept, b"x"), "Sec-WebSocket-Accept"),
        (head.replace(b"tower", b"other"), "does not speak tower"),
    ):
        with pytest.raises(TowerbusError, match=part):
            check_answer(bad, accept, "tower")


def test_compression_is_offered_and_has_to_be_taken():
    assert b"Extensions" not in made().request()[0]
    request, accept = made(compression=True).request()
    assert b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" in request
    head = b"HTTP/1.1 101 Switching\r\nsec-websocket-protocol: tower\r\nSEC-WEBSOCKET-ACCEPT: " + accept
    taken = head + b"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover"
    check_answer(taken, accept, "tower", compression=True)
    for bad in (head, taken.replace(b"; server_no", b"; client_no")):
        with pytest.raises(TowerbusError, match="--compression on"):
            check_answer(bad, accept, "tower", compression=True)
    with pytest.raises(TowerbusError, match="not offered: permessage-deflate"):
        check_answer(taken, accept, "tower")


def test_ports_that_run_short_take_more_addresses_of_this_machine(monkeypatch, tmp_path):
    ports = tmp_path / "range"
    ports.write_text("32768\t60999\n")
    monkeypatch.setattr(module, "_PORT_RANGE", ports)
    assert made(clients=25_000).sources == ()
    assert made(clients=60_000).sources == ("127.0.0.1", "127.0.0.2", "127.0.0.3")
    assert made(clients=5, sources=["127.0.0.9"]).sources == ("127.0.0.9",)
    with pytest.raises(ConfigError, match="need 3 addresses of 25408 ports each"):
        made(clients=60_000, sources=["127.0.0.9"])
    with pytest.raises(ConfigError, match="give them with --source"):
        made("ws://192.0.2.1/", clients=60_000)
    with pytest.raises(ConfigError, match="same kind"):
        made("ws://[::1]:80/", sources=["127.0.0.1"])


def test_the_token_is_not_shown():
    assert "secret" not in repr(made(token="secret"))
