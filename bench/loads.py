"""The loads. In each all servers are up and have their clients, and one after the other is given a part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from generator import Generator
from measure import BURST, TURNS, Contest, Figures, Load
from peers.peer import Peer

Gathering = Callable[[Generator, Load], None]
STATUS_RATE, EVENT_RATE, JOBS = 50, 2000, 1000
"""Tower's day: events a second for all, events a second of single jobs, jobs."""
ALL_RATE, PAGE_RATE, PERIOD = 20, 200, 1.0
"""Page navigation: events a second for all, events a second for single pages, seconds that a client stays on one."""
SLOW_NTH, SLOW_SIZE, SLOW_EVENTS, SLOW_CLIENTS = 50, 3000, 8.0, 0.5
"""Slow readers: each so-manieth client; bytes of an event; times the usual number of events, together more than the 4
MB or so that the kernel takes in for a client that does not read; part of the usual number of clients."""
RATE_TURNS = 1
"""Turns of each server in a round of a load with a rate of its own."""
OWN_TOPICS = 100
"""Topics of its own that each client has where many topics are the load."""
STORM_TURNS, STORM_MISSED, STORM_RATE, STORM_WINDOW = 1, 100, 20, 64
"""A reconnect storm: turns of each server in a round, events that happen while all are away, events a second while they
come back, handshakes that are under way at once."""
DEFLATE_SIZE, DEFLATE_EVENTS = 2000, 0.25
"""Compression: bytes of the longest event, the shortest has 300; part of the usual number of events."""
MANY_EVENTS = 0.3
"""Very many clients: part of the usual number of events."""
GENTLE_RATE, GENTLE_TIMES = 20, 2.0
"""Where the time to receipt is held against the floor's: events a second; how many times as long as other turns."""


class Kind(NamedTuple):
    """A load.

    Attributes:
        name: On the command line.
        title: Above its table.
        measure: Has the peers measured.
    """

    name: str
    title: str
    measure: Callable[[Mapping[str, Peer], Load], dict[str, Figures]]


def all_hear(generator: Generator, load: Load) -> None:
    """Each client hears one and the same topic."""
    generator.connect(load.clients)
    generator.subscribe(load.clients)


def jobs_too(generator: Generator, load: Load) -> None:
    """Each client hears the topic of all and that of one job."""
    jobs = min(JOBS, load.clients)
    generator.connect(load.clients, "own", jobs)
    generator.subscribe(load.clients, "own", jobs)


def own_too(generator: Generator, load: Load) -> None:
    """Each client hears the topic of all and others that nobody else has."""
    generator.connect(load.clients, "own")
    generator.subscribe(load.clients, "own")


def beside_a_crowd(generator: Generator, load: Load) -> None:
    """Each client hears the topic of all; many more are there that do not."""
    generator.connect(load.crowd, "idle")
    generator.subscribe(load.crowd, "idle")
    generator.connect(load.crowd + load.clients)
    generator.subscribe(load.crowd + load.clients)


def taking_turns(contests: Sequence[Contest], turns: int = TURNS) -> Iterator[Contest]:
    """Whose turn it is; forth and back, so that a change in what else the machine does hits all alike."""
    for number in range(turns):
        yield from contests if number % 2 else reversed(contests)


def topic(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """One topic, all clients: one event in flight (w1), and bursts of ten (b10)."""
    contests = {name: Contest(peer, load) for name, peer in peers.items()}
    with ExitStack() as stack:
        for contest in contests.values():
            contest.prepare(stack, all_hear)
        _w1_and_b10(list(contests.values()), "")
    return {name: contest.figures() for name, contest in contests.items()}


def many(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """As `topic`, with very many clients and fewer events."""
    more = replace(load, clients=load.many, events=max(1, round(load.events * MANY_EVENTS)))
    contests = {name: Contest(peer, more) for name, peer in peers.items()}
    with ExitStack() as stack:
        for contest in contests.values():
            contest.prepare(stack, all_hear)
        _w1_and_b10(list(contests.values()), "many_")
    return {name: contest.figures() for name, contest in contests.items()}


def deflate(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """As `topic`, compressed, with texts like Tower's job events."""
    fewer = replace(load, events=max(1, round(load.events * DEFLATE_EVENTS)))
    contests = {name: Contest(peer, fewer, DEFLATE_SIZE, way="deflate") for name, peer in peers.items()}
    with ExitStack() as stack:
        for contest in contests.values():
            contest.prepare(stack, all_hear)
        _w1_and_b10(list(contests.values()), "deflate_")
    return {name: contest.figures() for name, contest in contests.items()}


def storm(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """All clients are cut and come back, with nothing missed and with events that happened meanwhile."""
    contests = {name: Contest(peer, load, way="storm") for name, peer in peers.items()}
    with ExitStack() as stack:
        for contest in contests.values():
            contest.prepare(stack, all_hear)
        for contest in taking_turns(list(contests.values()), STORM_TURNS):
            missed, rate = max(1, round(STORM_MISSED * contest.share)), STORM_RATE * contest.share
            contest.attempt("storm_bare", partial(contest.storm, missed=0, rate=0, window=STORM_WINDOW))
            contest.attempt("storm", partial(contest.storm, missed=missed, rate=rate, window=STORM_WINDOW))
    return {name: _recovering(contest) for name, contest in contests.items()}


def pace(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """One topic, all clients, at a gentle rate."""
    contests = {name: Contest(peer, load) for name, peer in peers.items()}
    with ExitStack() as stack:
        for contest in contests.values():
            contest.prepare(stack, all_hear)
        for contest in taking_turns(list(contests.values()), RATE_TURNS):
            contest.turn("pace", f"pace {GENTLE_RATE} {max(1, round(GENTLE_RATE * GENTLE_TIMES * load.seconds))}")
    return {name: contest.figures() for name, contest in contests.items()}


def day(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """Tower's day; in slow motion for servers that get few events."""

    def command(contest: Contest) -> str:
        jobs = min(JOBS, load.clients)
        return f"day {STATUS_RATE * contest.share} {EVENT_RATE * contest.share} {jobs} {load.seconds}"

    return _at_a_rate("day", jobs_too, command, peers, load)


def navigation(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """Page navigation; in slow motion for servers that get few events."""

    def command(contest: Contest) -> str:
        share = contest.share
        return f"navigate {ALL_RATE * share} {PAGE_RATE * share} {PERIOD / share} {load.seconds}"

    return _at_a_rate("navigation", own_too, command, peers, load)


def slow(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """Some clients read nothing while the events go out; then they read, and what has become of them is counted."""
    fewer = replace(load, clients=max(SLOW_NTH, round(load.clients * SLOW_CLIENTS)))
    contests = {name: Contest(peer, fewer, SLOW_SIZE) for name, peer in peers.items()}
    with ExitStack() as stack:
        for contest in contests.values():
            contest.prepare(stack, all_hear)
            if not contest.faults:
                contest.generator.ask(f"stall {SLOW_NTH}")
        for contest in taking_turns(list(contests.values())):
            contest.turn("slow", f"run 1 {max(1, round(contest.events * SLOW_EVENTS / TURNS))}")
        for contest in contests.values():
            _thaw(contest)
    return {name: contest.figures() for name, contest in contests.items()}


def idle(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """The clients of w1 and b10 beside a crowd of idle ones, and the same without the crowd."""
    return _grown("idle", beside_a_crowd, 1, peers, load)


def topics(peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """Each client has topics of its own, on which nothing happens, and the same without them."""
    return _grown("topics", own_too, OWN_TOPICS, peers, load)


def _w1_and_b10(contests: Sequence[Contest], prefix: str) -> None:
    for name, burst in (("w1", 1), (f"b{BURST}", BURST)):
        for contest in taking_turns(contests):
            contest.run(prefix + name, burst)


def _at_a_rate(
    name: str, gather: Gathering, command: Callable[[Contest], str], peers: Mapping[str, Peer], load: Load
) -> dict[str, Figures]:
    contests = {each: Contest(peer, load) for each, peer in peers.items()}
    with ExitStack() as stack:
        for contest in contests.values():
            contest.prepare(stack, gather)
        for contest in taking_turns(list(contests.values()), RATE_TURNS):
            contest.turn(name, command(contest))
    return {each: contest.figures() for each, contest in contests.items()}


def _grown(name: str, gather: Gathering, repeat: int, peers: Mapping[str, Peer], load: Load) -> dict[str, Figures]:
    """Two of each server take turns: a plain one, and one that has to carry more."""
    plain = {each: Contest(peer, load) for each, peer in peers.items()}
    grown = {each: Contest(peer, load, repeat=repeat) for each, peer in peers.items()}
    with ExitStack() as stack:
        for each in peers:
            plain[each].prepare(stack, all_hear)
            grown[each].prepare(stack, gather)
        for kind, burst in (("w1", 1), (f"b{BURST}", BURST)):
            for number in range(TURNS):
                for each in peers if number % 2 else reversed(peers):
                    plain[each].run(f"{name}_without_{kind}", burst)
                    grown[each].run(f"{name}_{kind}", burst)
    figures = {}
    for each in peers:
        found, without = grown[each].figures(), plain[each].figures()
        figures[each] = Figures(found.values | without.values, found.faults + without.faults)
        for kind in ("w1", f"b{BURST}"):
            if f"{name}_{kind}_us" in found.values and f"{name}_without_{kind}_us" in without.values:
                times = found.values[f"{name}_{kind}_us"] / without.values[f"{name}_without_{kind}_us"]
                figures[each].values[f"{name}_{kind}_growth"] = times
    return figures


def _recovering(contest: Contest) -> Figures:
    """With the CPU of an event that a client gets as it comes back: what coming back costs without any is taken off."""
    found = contest.figures()
    values = found.values
    if contest.peer.resumes() and values.get("storm_deliveries"):
        more = values["storm_client_us"] - values["storm_bare_client_us"]
        values["storm_recovered_us"] = more / values["storm_deliveries"]
    return found


def _thaw(contest: Contest) -> None:
    if contest.faults:
        return
    try:
        answer = contest.ask("thaw", "slow readers")
    except RuntimeError as error:
        contest.faults.append(f"slow readers: {error}")
        return
    for fate in ("whole", "cut", "silent"):
        contest.note(f"slow_{fate}", answer[fate])


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("topic", "One topic, all clients", topic),
        Kind("many", "One topic, very many clients", many),
        Kind("pace", f"One topic, all clients, {GENTLE_RATE} events a second", pace),
        Kind("day", f"Tower's day: {STATUS_RATE}/s for all, {EVENT_RATE}/s of {JOBS} jobs", day),
        Kind("navigation", f"Page navigation: each client replaces its set each {PERIOD:g} s", navigation),
        Kind("storm", f"Reconnect storm: all clients are cut, miss {STORM_MISSED} events and come back", storm),
        Kind("slow", f"Slow readers: each {SLOW_NTH}th client does not read, {SLOW_SIZE}-byte events", slow),
        Kind("deflate", f"Compressed: job events of 300 to {DEFLATE_SIZE} bytes", deflate),
        Kind("idle", "An idle crowd beside the clients", idle),
        Kind("topics", f"{OWN_TOPICS} more topics for each client", topics),
    )
}
