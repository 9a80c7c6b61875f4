"""The ways between the bridges and the bus: intakes, the log, and the dead queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred

from towerbus.amqp.burying import DeadLetters, Letter
from towerbus.amqp.intake import AmqpIntake
from towerbus.amqp.log import AmqpLog
from towerbus.amqp.url import Broker
from towerbus.bridge.message import Message
from towerbus.bridge.metrics import BusState

BRIDGE_HEADER = "towerbus-bridge"
"""The header of a dead letter that says through which bridge it came."""


class DeadQueue:
    """The bus's dead queue, as bridges use it.

    Args:
        letters: Keeps letters there.
    """

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters

    def bury(self, message: Message, reason: str, bridge: str) -> Deferred[None]:
        """Put a message there; one without a routing key has its topic for one, where its source knows it."""
        topic = ".".join(filter(None, (message.group, message.type)))
        return self._letters.bury(
            Letter(
                message.body,
                reason,
                {**message.headers, BRIDGE_HEADER: bridge},
                message_id=message.id,
                content_type=message.content_type,
                routing_key=message.routing_key or topic,
                place=message.place,
            )
        )


class Ways:
    """The ways between the bridges and the bus: made as they are needed, and asked how they are.

    Args:
        broker: The bus's.
        reactor: Connects, and tells the time.
        hopeless: Called with the text when the broker refuses us, and never let us in before.
    """

    def __init__(self, broker: Broker, reactor: Any, hopeless: Callable[[str], None]) -> None:
        self._broker = broker
        self._reactor = reactor
        self._hopeless = hopeless
        self.letters = DeadLetters(broker, reactor)
        self.log: AmqpLog | None = None
        self.intakes: dict[str, AmqpIntake] = {}

    def intake(self, name: str) -> AmqpIntake:
        """A way into the bus for one bridge alone: none waits for another's."""

        def refused(text: str) -> None:
            if not made.bus.reconnects:
                self._hopeless(text)

        made = self.intakes[name] = AmqpIntake(
            self._broker, self._reactor, patient=True, name=f"bridge {name}", refused=refused
        )
        return made

    def reading(self) -> AmqpLog:
        """The log, one for all sinks."""
        if self.log is None:
            self.log = AmqpLog(self._broker, self._reactor, refused=self._reading_refused)
        return self.log

    def _reading_refused(self, text: str) -> None:
        if self.log is not None and not self.log.known:
            self._hopeless(text)

    def services(self) -> Sequence[IService]:
        """All of them, to be run."""
        return (self.letters, *([] if self.log is None else [self.log]), *self.intakes.values())

    def states(self) -> Sequence[BusState]:
        """How they are."""
        found = [BusState("dead letters", self.letters.trouble, self.letters.reconnects)]
        if self.log is not None:
            found.append(BusState("log", self.log.trouble, self.log.bus.reconnects))
        found += [BusState(f"bridge {name}", each.trouble, each.bus.reconnects) for name, each in self.intakes.items()]
        return found

    def broken(self) -> dict[str, str]:
        """What is wrong with the bus: every way has the same broker, so one reason for each kind is enough."""
        found = {"log": self.log.trouble} if self.log is not None and self.log.trouble else {}
        troubles = [each.trouble for each in self.intakes.values()] + [self.letters.trouble or self.letters.refusal]
        return found | next(({"bus": text} for text in troubles if text), {})
