"""Why a session of the worker ends, though the connection is there."""

from towerbus.errors import TowerbusError


class LogDeleted(TowerbusError):
    """The broker ended our reading of the log: it was deleted, or its node went down."""


class LogSilent(TowerbusError):
    """A record that must be in the log does not come."""


class IntakeDeleted(TowerbusError):
    """The broker ended our consuming of the intake: it was deleted, or its node went down."""


class Superseded(TowerbusError):
    """Another worker has become the active one."""


class Stalled(TowerbusError):
    """The broker does not confirm what was published."""


class TooHeavy(TowerbusError):
    """What was delivered is more than a worker may have in hand."""


class Lighter(TowerbusError):
    """There is room for more messages in hand."""


class Finished(TowerbusError):
    """It was asked to finish, and there is nothing in flight."""
