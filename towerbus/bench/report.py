"""What a run came to, as JSON and as a table. Pure."""

from __future__ import annotations

from typing import Any

from towerbus.bench.ledger import KINDS
from towerbus.bench.loads import Name, Shape
from towerbus.bench.machine import Cost
from towerbus.bench.run import CUTS, Outcome, Wish

BUSY = 0.9
"""The part of a CPU above which the bench's own processes may be what is measured."""
LATE = 0.05
"""Seconds of delay of the emitting above which the rate was not held."""
_NONE, _CONNECTED, _SUBSCRIBED, _BEFORE, _AFTER = range(5)
"""The looks at what the system costs, in order."""


def result(wish: Wish, outcome: Outcome, url: str) -> dict[str, Any]:
    """All figures.

    Args:
        wish: What was done.
        outcome: What came of it.
        url: The WebSocket's, as it may be shown.
    """
    deliveries = outcome.figures["deliveries"]
    parts = _parts(wish, outcome, deliveries)
    return {
        "load": str(wish.shape.name),
        "url": url,
        "dialect": wish.target.subprotocol,
        "tls": wish.target.tls is not None,
        "compression": wish.target.compression,
        "clients": wish.shape.clients,
        "events": max(0, outcome.emitted - wish.warm_up),
        "planned": wish.events,
        "cut_short": outcome.cut_short or None,
        "warm_up": wish.warm_up,
        "size": wish.size,
        "pace": _pace(wish),
        "true": not outcome.faults.total,
        "untruths": {kind: outcome.faults.counts[kind] for kind in KINDS},
        "examples": outcome.faults.examples,
        "deliveries": deliveries,
        "seconds": round(outcome.seconds, 3),
        "receipt_ms": outcome.receipts.summary(),
        "last_client_ms": outcome.last.summary(),
        "returned_ms": outcome.returns.summary(),
        "counts": {name: number for name, number in outcome.figures.items() if name != "deliveries"},
        "alike": _alike(wish.shape),
        "emits": {"late_ms": round(outcome.late * 1000, 1), "tried_again": outcome.retried},
        "parts": parts,
        "cpu_us": _sum(parts, broker=False),
        "broker_cpu_us": _sum(parts, broker=True),
        "bench": {
            "processes": wish.processes,
            "cpu_us": round(outcome.cpu / deliveries * 1e6, 3) if deliveries else None,
            "busy": round(outcome.cpu / outcome.elapsed, 3) if outcome.elapsed > 0 else 0.0,
        },
    }


def _alike(shape: Shape) -> str | None:
    """Why a load that is about two kinds of clients has only one."""
    if shape.name is Name.SLOW and shape.few == shape.clients:
        return "all clients are slow"
    if shape.name is Name.IDLE and shape.few == shape.clients:
        return "no client is idle"
    return None


def table(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = [
        (
            f"{figures['load']}: {figures['clients']:,} clients "
            f"({figures['dialect']}{', TLS' * figures['tls']}{', compressed' * figures['compression']}), "
            f"{_number(figures)} events of {figures['size']} bytes, {figures['pace']}"
        ),
        "",
        *_truth(figures),
        *_times(figures),
        *_costs(figures),
    ]
    warnings = _warnings(figures)
    return "\n".join([*lines, *(["", *warnings] if warnings else [])])


def _number(figures: dict[str, Any]) -> str:
    """How many events were emitted, and of how many where that is less."""
    events, planned = figures["events"], figures["planned"]
    return f"{events:,}" if events == planned else f"{events:,} of {planned:,}"


def _pace(wish: Wish) -> str:
    if wish.rate is not None:
        return f"{wish.rate:g} a second"
    return "one in flight" if wish.burst == 1 else f"in bursts of {wish.burst}"


def _parts(wish: Wish, outcome: Outcome, deliveries: int) -> list[dict[str, Any]]:
    """What each part of the system has cost; None for what was not or could not be measured."""
    looks = list(zip(*outcome.costs, strict=True))
    clients = outcome.counted
    return [
        {
            "name": part.name,
            "pids": list(part.pids),
            "broker": part.broker,
            "cpu_us": _micros(look[_BEFORE], look[_AFTER], deliveries),
            "handshake_us": _micros(look[_NONE], look[_CONNECTED], clients),
            "subscribe_us": _micros(look[_CONNECTED], look[_SUBSCRIBED], wish.shape.clients),
            "kb_per_client": _kilobytes(look[_NONE], look[_SUBSCRIBED], clients),
        }
        for part, look in zip(wish.parts, looks, strict=True)
    ]


def _micros(before: Cost, after: Cost, number: int) -> float | None:
    # A process that has ended takes its time with it.
    return round((after.cpu - before.cpu) / number * 1e6, 3) if number and after.cpu >= before.cpu else None


def _kilobytes(before: Cost, after: Cost, number: int) -> float | None:
    if before.memory is None or after.memory is None or not number:
        return None
    return round((after.memory - before.memory) / number / 1024, 2)


def _sum(parts: list[dict[str, Any]], *, broker: bool) -> float | None:
    known = [part["cpu_us"] for part in parts if part["broker"] == broker and part["cpu_us"] is not None]
    return round(sum(known), 3) if known else None


def _truth(figures: dict[str, Any]) -> list[str]:
    said = ", ".join(f"{number:,} {kind}" for kind, number in figures["untruths"].items())
    found = "NOT TRUE" if not figures["true"] else "all true so far" if figures["cut_short"] else "all true"
    head = [_line("truth", f"{figures['deliveries']:,} deliveries: {found}"), _line("", said)]
    if figures["cut_short"]:
        head.insert(0, _line("cut short", figures["cut_short"]))
    return head + [_line("", text) for text in figures["examples"]]


def _times(figures: dict[str, Any]) -> list[str]:
    lines = []
    for key, title, what in (
        ("receipt_ms", "receipt", "emit to receipt, each delivery"),
        ("last_client_ms", "last client", "emit to the last client's receipt, each event"),
        ("returned_ms", "returned", "cut to caught up, each client"),
    ):
        if figures[key]:
            said = ", ".join(f"{name} {value:.2f}" for name, value in figures[key].items())
            lines.append(_line(title, f"{said} ms ({what})"))
    seconds = figures["seconds"]
    if seconds:
        lines.append(_line("speed", f"{figures['deliveries'] / seconds:,.0f} deliveries a second, {seconds:.1f} s"))
    counts = {name: number for name, number in figures["counts"].items() if number}
    if figures["emits"]["tried_again"]:
        counts["emits tried again"] = figures["emits"]["tried_again"]
    if counts:
        lines.append(_line("counted", ", ".join(f"{number:,} {name}" for name, number in counts.items())))
    return lines


def _costs(figures: dict[str, Any]) -> list[str]:
    columns = (
        ("cpu_us", "us CPU a delivery", 2),
        ("handshake_us", "us a handshake", 0),
        ("subscribe_us", "us a subscription", 0),
        ("kb_per_client", "KB a client", 1),
    )
    lines = []
    for part in figures["parts"]:
        said = [f"{part[key]:,.{digits}f} {what}" for key, what, digits in columns if (part[key] or 0) > 0]
        lines.append(_line(part["name"], ", ".join(said)))
    if not lines:
        lines.append(_line("cost", "not known: no process of the server is on this machine, or give --pid NAME=PID"))
    elif figures["cpu_us"] is not None and len(lines) > 1:
        broker = figures["broker_cpu_us"]
        beside = f"; broker apart: {broker:.2f}" if broker is not None else ""
        lines.append(_line("together", f"{figures['cpu_us']:.2f} us CPU a delivery{beside}"))
    bench = figures["bench"]
    if bench["cpu_us"] is not None:
        lines.append(_line("this bench", f"{bench['cpu_us']:.2f} us CPU a delivery, {bench['busy']:.0%} busy"))
    return lines


def _warnings(figures: dict[str, Any]) -> list[str]:
    lines = []
    if figures["bench"]["busy"] > BUSY:
        lines.append(
            "Note: the bench itself was as busy as it can be, so times are its own in part: give more --processes."
        )
    if figures["emits"]["late_ms"] > LATE * 1000:
        lines.append(
            f"Note: emits fell up to {figures['emits']['late_ms']:g} ms behind the rate; that is in the times above. A "
            "lower --rate shows what the server does when it is not overrun."
        )
    if figures["load"] == Name.SLOW and not figures["counts"].get("closed slow"):
        lines.append(
            "Note: no slow client was closed: too little was waiting for them. Give a larger --size, more "
            "--seconds or a lower --slow-rate."
        )
    if not figures["deliveries"]:
        lines.append("Note: nothing was delivered that counts, so nothing is shown.")
    elif figures["alike"]:
        lines.append(f"Note: {figures['alike']}, so this load shows no more than --load topic does.")
    if figures["load"] == Name.STORM and not figures["cut_short"]:
        cuts = CUTS * figures["clients"]
        returned = figures["counts"].get("returned", 0)
        if figures["true"] and returned < cuts:
            lines.append(
                f"Note: clients came back {returned:,} times, and not {cuts:,}: the second cut came before they "
                "were back from the first. Give a lower --rate or more --events."
            )
    return lines


def _line(title: str, text: str) -> str:
    return f"{title:12} {text}"
