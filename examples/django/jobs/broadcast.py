"""Emits when, and only when, the transaction has committed. Copy this file into your project."""

import logging
from functools import partial

from django.db import transaction

from towerbus.compat import emit_channel_notification

log = logging.getLogger(__name__)


def emit_on_commit(group, payload, using=None):
    """Broadcast a payload once the transaction has committed; at once where there is none.

    A transaction that is rolled back broadcasts nothing, and so does a rolled back savepoint. Those who read the
    application on account of the event find what it speaks of.

    Args:
        group: The joined name, such as `jobs-status_changed`.
        payload: A non-empty dict; it is copied, and may be changed afterwards.
        using: The database, where it is not the default one.
    """
    transaction.on_commit(partial(_emit, group, dict(payload)), using=using)


def _emit(group, payload):
    try:
        emit_channel_notification(group, payload)
    except Exception:
        # It is committed: nothing that goes wrong here may look to the caller as if it were not.
        log.exception("committed, but not broadcast: %s %s", group, payload)
