"""What the options of `towerbus bench` say together: whether they fit each other, and the run they ask for."""

from __future__ import annotations

import math
import resource
import secrets
import ssl
from typing import Any
from urllib.parse import parse_qs, urlsplit

import click
from click.core import ParameterSource

from towerbus.bench import machine
from towerbus.bench.loads import WALK, Name, Shape
from towerbus.bench.run import CUTS, Wish
from towerbus.bench.target import target
from towerbus.commands.urls import HTTP_URL, http_url, websocket_url
from towerbus.dialects import tower, v1
from towerbus.errors import ConfigError
from towerbus.topics import TopicError, emittable

EVENTS = 200
"""Events, where no rate says how many there are in a time."""
RATES = {Name.TOWER_DAY: 2000.0, Name.NAVIGATION: 100.0, Name.STORM: 100.0, Name.SLOW: 100.0}
"""Events a second of the loads that go by the clock."""
PAGES = 20
SLOW_SHARE = 0.02
BUSY_SHARE = 0.05
_FILES = 200
"""Descriptors that a process needs beside its clients'."""

MOST_EVENTS = 10_000_000
"""Events of a run, at the most: the plan of them all is in memory, and in every process."""
_FOR = {
    "jobs": {Name.TOWER_DAY},
    "status_rate": {Name.TOWER_DAY},
    "period": {Name.NAVIGATION},
    "slow": {Name.SLOW},
    "slow_rate": {Name.SLOW},
    "busy": {Name.IDLE},
    "topics": {Name.TOPIC, Name.NAVIGATION, Name.STORM, Name.SLOW, Name.IDLE},
    "each": {Name.TOPIC, Name.STORM, Name.SLOW, Name.IDLE},
}
"""The loads in which an option means something, where these are not all."""


def wish(given: dict[str, Any]) -> Wish:
    """What the options say.

    Args:
        given: The values of all options, by their parameters' names; the context says which the user gave.

    Raises:
        click.UsageError: They contradict each other, or one would mean nothing.
        ConfigError: One of them is not right.
    """
    _check_given(given)
    shape, rate = _shape(given)
    dialect = given["dialect"] or (v1.NAME if shape.name is Name.STORM else tower.NAME)
    if shape.name is Name.STORM and dialect != v1.NAME:
        raise click.UsageError(f"--load storm is about coming back with a position, which only {v1.NAME} has")
    if given["processes"] > shape.clients:
        raise click.UsageError(f"--processes: there are only {shape.clients} clients")
    _check_files(shape.clients, given["processes"])
    url = websocket_url(given["url"])
    http = given["http"] or http_url(url)
    if given["http"] is None and http == url:
        raise click.UsageError(
            "--http: give the HTTP listener's URL, where events are emitted; it can't be told from a --url whose port "
            f"is not 8051: wanted is one such as {HTTP_URL}"
        )
    if (given["ca"] or given["insecure"]) and not (url.startswith("wss:") or http.startswith("https:")):
        raise click.UsageError("--ca and --insecure are for wss: and https:, and neither URL is one")
    own = _token(url)
    if own and _was_given("token") and given["token"] != own:
        raise click.UsageError("--token is not the token that --url has in its ?token=: give one of them")
    tls = _tls(given["ca"], insecure=given["insecure"])
    events, warm_up = _events(given, rate)
    return Wish(
        target=target(
            url,
            "" if own else given["token"],
            dialect,
            shape.clients,
            tls=tls,
            sources=given["sources"],
            compression=given["compression"],
        ),
        http=http,
        token=_token(http) or own or given["token"],
        tls=tls,
        shape=shape,
        events=events,
        warm_up=warm_up,
        rate=rate,
        burst=given["burst"] or 1,
        size=given["size"],
        processes=given["processes"],
        window=given["window"],
        period=given["period"],
        slow_rate=given["slow_rate"],
        patience=given["patience"],
        parts=machine.watched(given["pids"], _ports(url, http)),
    )


def _check_given(given: dict[str, Any]) -> None:
    """Look for options that would mean nothing beside the others.

    Raises:
        click.UsageError: There is one.
    """
    load = Name(given["load"])
    for name, loads in _FOR.items():
        if _was_given(name) and load not in loads:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} means nothing with --load {load}: it is for {', '.join(sorted(loads))}")
    if _was_given("seconds") and given["events"]:
        raise click.UsageError("--events and --seconds both say how many events there are: give one of them")
    if _was_given("seconds") and not given["rate"] and (given["burst"] or load not in RATES):
        raise click.UsageError(
            "--seconds: without --rate the next events come when all clients have the last: give --rate"
        )


def _was_given(name: str) -> bool:
    """Whether an option stands on the command line."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _token(url: str) -> str:
    """The token in a URL; empty where it has none."""
    return parse_qs(urlsplit(url).query).get("token", [""])[0]


def _events(given: dict[str, Any], rate: float | None) -> tuple[int, int]:
    """How many events there are, and how many before them that are not measured.

    Raises:
        click.UsageError: More than a run may have.
    """
    # The product may be more than any integer: it is bounded before it is made one.
    events = given["events"] or (EVENTS if rate is None else rate * given["seconds"])
    if events > MOST_EVENTS:
        raise click.UsageError(
            f"{events:,.0f} events are more than a run may have, {MOST_EVENTS:,}: "
            "give a lower --events, --rate or --seconds"
        )
    events = max(1, round(events))
    warm_up = min(events // 10, 500) if given["warm_up"] is None else given["warm_up"]
    if given["load"] == Name.STORM and events <= CUTS:
        raise click.UsageError(f"--events: a storm cuts all clients {CUTS} times, so there must be more than that")
    if events + warm_up > MOST_EVENTS:
        raise click.UsageError(
            f"{events:,} events and {warm_up:,} before them are more than a run may have, {MOST_EVENTS:,}: "
            "give a lower --warm-up"
        )
    return events, warm_up


def _shape(given: dict[str, Any]) -> tuple[Shape, float | None]:
    """The load, and events a second; None where the next come when all clients have the last."""
    name, clients = Name(given["load"]), given["clients"]
    rate = given["rate"] or (None if given["burst"] else RATES.get(name))
    if given["burst"] and (given["rate"] or name in RATES):
        raise click.UsageError(
            "--burst waits for all clients, and this load goes by the clock: give --rate, or neither"
        )
    share = 0.0
    if name is Name.TOWER_DAY and rate is not None:
        rate += given["status_rate"]
        share = given["status_rate"] / rate
    topics = given["topics"] or (PAGES if name is Name.NAVIGATION else 1)
    if name is Name.NAVIGATION and topics <= WALK:
        raise click.UsageError(f"--topics: a client sees {WALK} pages at once, so there must be more than that")
    if name is not Name.NAVIGATION and given["each"] > topics:
        raise click.UsageError(f"--each: there are only {topics} topics; give --topics")
    few = given["slow"] or math.ceil(clients * SLOW_SHARE) if name is Name.SLOW else 0
    few = given["busy"] or math.ceil(clients * BUSY_SHARE) if name is Name.IDLE else few
    if few > clients:
        raise click.UsageError(f"--{'slow' if name is Name.SLOW else 'busy'}: there are only {clients} clients")
    mark = f"bench-{secrets.token_hex(2)}." if given["mark"] is None else given["mark"]
    _check_mark(mark, max(topics, given["jobs"]))
    shape = Shape(
        name=name,
        clients=clients,
        few=few,
        topics=topics,
        each=given["each"],
        jobs=given["jobs"],
        status_share=share,
        mark=mark,
    )
    return shape, rate


def _check_mark(mark: str, number: int) -> None:
    """See that the longest name that it begins can be that of a type.

    Raises:
        ConfigError: It can't.
    """
    try:
        emittable("jobs", f"{mark}status_changed-{number}")
    except TopicError as error:
        raise ConfigError(f"--mark: types that begin with {mark!r:.60} can't be: {error}") from None


def _check_files(clients: int, processes: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = -(-clients // processes) + _FILES
    if most != resource.RLIM_INFINITY and wanted > most:
        more = f"give --processes {-(-clients // (most - _FILES))} or more, or " if most > _FILES else ""
        raise ConfigError(
            f"--clients: a process may open {most} files (ulimit -Hn) and would need {wanted}: {more}raise the limit"
        )


def _tls(ca: str | None, *, insecure: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise ConfigError(f"--ca: {ca} holds no certificates that can be read: {error.reason}") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _ports(url: str, http: str) -> list[tuple[str, str, int]]:
    """Where the parts of the server that clients and producers see listen."""
    found = []
    for name, each, plain, secure in (("server", url, "ws", "wss"), ("http", http, "http", "https")):
        parts = urlsplit(each)
        found.append((name, parts.hostname or "", parts.port or {plain: 80, secure: 443}.get(parts.scheme, 0)))
    return found
