"""Who may see what, and who may emit what: identities, grants and rules. Pure.

The rules stand in order and the first that names the topic decides; a topic that none names is denied. A grant is a
pattern `group/type` with `*` for a whole part; `*` alone grants everything of its kind and passes every rule but
`nobody`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from typing import NamedTuple

import msgspec

from towerbus.errors import ConfigError
from towerbus.interest import Sight
from towerbus.topics import Topic

EVERYTHING = "*"
"""The pattern that grants all of its kind."""
ANYONE = ""
"""The badge that every identity holds."""
MAX_REMEMBERED = 65536
"""Topics of which it is remembered what opens them, and groups of which it is remembered which rules are about them."""


class Grants(msgspec.Struct, frozen=True, dict=True):
    """What an identity may do, as patterns `group/type`.

    Attributes:
        subscribe: The topics that it may see where a rule asks for a grant.
        emit: The topics that it may emit to. There is no other way to be allowed to.
    """

    subscribe: tuple[str, ...] = ()
    emit: tuple[str, ...] = ()

    @cached_property
    def _sees(self) -> Patterns:
        return Patterns(self.subscribe)

    @cached_property
    def _emits(self) -> Patterns:
        return Patterns(self.emit)

    @property
    def sees_everything(self) -> bool:
        """True when `*` stands among the grants to subscribe."""
        return self._sees.everything

    def may_see(self, topic: Topic) -> bool:
        """Whether a grant to subscribe names the topic."""
        return self._sees.name(topic)

    def within(self, group: str) -> frozenset[str]:
        """The patterns among the grants to subscribe that may name a topic of the group."""
        return self._sees.within(group)

    def may_emit(self, topic: Topic) -> bool:
        """Whether a grant to emit names the topic."""
        return self._emits.name(topic)


class Patterns:
    """A set of grant patterns, made ready for looking up: an identity may hold thousands of ids."""

    def __init__(self, patterns: Iterable[str]) -> None:
        given = set(patterns)
        self.everything = EVERYTHING in given
        self._pairs = {tuple(pattern.split("/", 1)) for pattern in given if "/" in pattern}

    def name(self, topic: Topic) -> bool:
        """Whether one of the patterns names the topic; no pattern names an internal one."""
        if topic.internal:
            return False
        if self.everything:
            return True
        group, type_ = topic
        pairs = self._pairs
        return (group, type_) in pairs or (group, "*") in pairs or ("*", type_) in pairs or ("*", "*") in pairs

    def within(self, group: str) -> frozenset[str]:
        """Those that may name a topic of the group."""
        return frozenset(f"{first}/{second}" for first, second in self._pairs if first in {group, EVERYTHING})


NO_GRANTS = Grants()


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a client is, as an `--auth` plugin found out.

    Attributes:
        user: The user's id, as it was given.
        name: What a person would call the user; for the log.
        grants: What the user may do beyond the rules.
        expires: When it ends, in seconds since the epoch of Unix; None for never.
    """

    user: int | str
    name: str = ""
    grants: Grants = NO_GRANTS
    expires: float | None = None


class Who(enum.StrEnum):
    """Whom a rule lets see the topics that it names."""

    EVERYONE = "everyone"
    """Any authenticated identity."""
    OWN = "own"
    """The user whose id the type ends with, as in `limit_reached_7`."""
    GRANTED = "granted"
    """Those whose grants name the topic."""
    ASK = "ask"
    """Those whose grants name it, and those that the application says may: it is asked."""
    NOBODY = "nobody"
    """No one, whatever was granted."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule: who may see the topics that it names.

    Attributes:
        groups: Patterns of groups, `*` and `?` as in file names: `*_events`.
        types: Patterns of types, likewise.
        who: Whom it lets see them.
    """

    groups: tuple[str, ...]
    who: Who
    types: tuple[str, ...] = ("*",)

    def names_group(self, group: str) -> bool:
        """Whether the rule is about topics of the group."""
        return any(fnmatchcase(group, pattern) for pattern in self.groups)

    def names_type(self, type_: str) -> bool:
        """Whether, in a group that it names, it is about topics of the type."""
        return EVERYTHING in self.types or any(fnmatchcase(type_, pattern) for pattern in self.types)


def default_rules(*, ask: bool) -> tuple[Rule, ...]:
    """Tower's rules with their holes closed.

    Args:
        ask: Whether there is an application to ask about the events of single jobs.
    """
    return (
        Rule(groups=("jobs", "schedules", "inventories"), who=Who.EVERYONE),
        Rule(groups=("control",), who=Who.OWN),
        Rule(groups=("*_events",), who=Who.ASK if ask else Who.GRANTED),
        Rule(groups=("*",), who=Who.GRANTED),
    )


class Verdict(enum.Enum):
    """What the rules say of one identity and one topic."""

    ALLOWED = "allowed"
    DENIED = "denied"
    ASK = "ask"


class Judged(NamedTuple):
    """What the rules say of one identity and some topics; those in neither are denied.

    Attributes:
        allowed: It may see them.
        ask: The application has to be asked.
    """

    allowed: frozenset[Topic]
    ask: frozenset[Topic]


class AccessRules:
    """The rules of one server, in order.

    Args:
        rules: The rules; the first that names a topic decides.
        ask: Whether there is an application to ask.

    Raises:
        ConfigError: A rule says `ask` and there is nothing to ask.
    """

    def __init__(self, rules: Sequence[Rule] | None = None, *, ask: bool = False) -> None:
        self._rules = default_rules(ask=ask) if rules is None else tuple(rules)
        self._opens: dict[Topic, frozenset[str]] = {}
        self._of_group: dict[str, tuple[Rule, ...]] = {}
        for rule in self._rules:
            if rule.who is Who.ASK and not ask:
                raise ConfigError(
                    f'access rule for {", ".join(rule.groups)}: who = "ask" needs an application to ask: give --ask-url'
                )

    def become(self, other: AccessRules) -> bool:
        """Take the rules of another, from now on. Everything that was decided has to be decided anew.

        Returns:
            Whether they are different ones.
        """
        changed = self._rules != other._rules
        self._rules = other._rules
        self._opens.clear()
        self._of_group.clear()
        return changed

    def verdict(self, identity: Identity, topic: Topic) -> Verdict:
        """Decide whether an identity may see a topic, or that the application has to be asked."""
        if topic.internal:
            return Verdict.DENIED
        rule = self._first(topic)
        if rule is None or rule.who is Who.NOBODY:
            return Verdict.DENIED
        if rule.who is Who.EVERYONE or identity.grants.sees_everything:
            return Verdict.ALLOWED
        if rule.who is Who.OWN:
            return Verdict.ALLOWED if _owns(identity, topic) else Verdict.DENIED
        if identity.grants.may_see(topic):
            return Verdict.ALLOWED
        return Verdict.ASK if rule.who is Who.ASK else Verdict.DENIED

    def judged(self, identity: Identity, topics: Iterable[Topic]) -> Judged:
        """Decide about some topics: which an identity may see, and about which the application has to be asked."""
        allowed: list[Topic] = []
        ask: list[Topic] = []
        for topic in topics:
            verdict = self.verdict(identity, topic)
            if verdict is Verdict.ALLOWED:
                allowed.append(topic)
            elif verdict is Verdict.ASK:
                ask.append(topic)
        return Judged(frozenset(allowed), frozenset(ask))

    def sights(self, identity: Identity, groups: Iterable[str]) -> frozenset[Sight]:
        """What an identity gets of whole groups."""
        sights = (self.sight(identity, group) for group in groups)
        return frozenset(sight for sight in sights if sight.badges)

    def sight(self, identity: Identity, group: str) -> Sight:
        """All that an identity may see of a group without anybody being asked; without badges where that is nothing.

        It holds the badges that the group's rules ask for and no others: those who may see the same have equal sights.
        """
        asked = self._asked(group)
        badges: set[str] = set()
        if Who.EVERYONE in asked:
            badges.add(ANYONE)
        if Who.OWN in asked:
            badges |= _own(str(identity.user))
        if Who.GRANTED in asked or Who.ASK in asked:
            badges |= identity.grants.within(group)
        if asked - {Who.EVERYONE, Who.NOBODY} and identity.grants.sees_everything:
            badges = {ANYONE, EVERYTHING} if Who.EVERYONE in asked else {EVERYTHING}
        return Sight(group, frozenset(badges))

    def opens(self, topic: Topic) -> frozenset[str]:
        """The badges that let their holder see a topic without anybody being asked: one of them is enough."""
        known = self._opens.get(topic)
        if known is None:
            if len(self._opens) >= MAX_REMEMBERED:
                self._opens.clear()
            known = self._opens[topic] = self._opened(topic)
        return known

    def _opened(self, topic: Topic) -> frozenset[str]:
        rule = self._first(topic)
        if topic.internal or rule is None or rule.who is Who.NOBODY:
            return frozenset()
        if rule.who is Who.EVERYONE:
            return frozenset({ANYONE})
        if rule.who is Who.OWN:
            _, dash, user = topic.type.rpartition("_")
            return frozenset({EVERYTHING}) | (_own(user) if dash else frozenset())
        group, type_ = topic
        return frozenset({EVERYTHING, f"{group}/{type_}", f"{group}/*", f"*/{type_}", "*/*"})

    def _first(self, topic: Topic) -> Rule | None:
        """The first rule that names the topic: it decides."""
        for rule in self._about(topic.group):
            if rule.names_type(topic.type):
                return rule
        return None

    def _about(self, group: str) -> tuple[Rule, ...]:
        """The rules that may decide about a topic of the group."""
        known = self._of_group.get(group)
        if known is None:
            if len(self._of_group) >= MAX_REMEMBERED:
                self._of_group.clear()
            named = [rule for rule in self._rules if rule.names_group(group)]
            whole = next((number for number, rule in enumerate(named, 1) if EVERYTHING in rule.types), len(named))
            known = self._of_group[group] = tuple(named[:whole])
        return known

    def _asked(self, group: str) -> frozenset[Who]:
        """What the rules ask for that may decide about a topic of the group."""
        return frozenset() if group.startswith("_") else frozenset(rule.who for rule in self._about(group))


def _owns(identity: Identity, topic: Topic) -> bool:
    """Whether the type ends with `_<user id>`. An id with `_` in it owns nothing: `reached_7` is not `7`."""
    user = str(identity.user)
    return bool(user) and "_" not in user and topic.type.endswith(f"_{user}")


def _own(user: str) -> frozenset[str]:
    """The badge of what a user owns; an id that owns nothing has none. No pattern looks like it."""
    return frozenset({f"own:{user}"}) if user and "_" not in user and "/" not in user else frozenset()
