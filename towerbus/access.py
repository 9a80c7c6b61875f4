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

import msgspec

from towerbus.errors import ConfigError
from towerbus.topics import Topic

EVERYTHING = "*"
"""The pattern that grants all of its kind."""


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

    def names(self, topic: Topic) -> bool:
        """Whether the rule is about the topic."""
        return any(fnmatchcase(topic.group, group) for group in self.groups) and any(
            fnmatchcase(topic.type, type_) for type_ in self.types
        )


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
        for rule in self._rules:
            if rule.who is Who.ASK and not ask:
                raise ConfigError(
                    f'access rule for {", ".join(rule.groups)}: who = "ask" needs an application to ask: give --ask-url'
                )

    def verdict(self, identity: Identity, topic: Topic) -> Verdict:
        """Decide whether an identity may see a topic, or that the application has to be asked."""
        if topic.internal:
            return Verdict.DENIED
        rule = next((rule for rule in self._rules if rule.names(topic)), None)
        if rule is None or rule.who is Who.NOBODY:
            return Verdict.DENIED
        if rule.who is Who.EVERYONE or identity.grants.sees_everything:
            return Verdict.ALLOWED
        if rule.who is Who.OWN:
            return Verdict.ALLOWED if _owns(identity, topic) else Verdict.DENIED
        if identity.grants.may_see(topic):
            return Verdict.ALLOWED
        return Verdict.ASK if rule.who is Who.ASK else Verdict.DENIED


def _owns(identity: Identity, topic: Topic) -> bool:
    """Whether the type ends with `_<user id>`. An id with `_` in it owns nothing: `reached_7` is not `7`."""
    user = str(identity.user)
    return bool(user) and "_" not in user and topic.type.endswith(f"_{user}")
