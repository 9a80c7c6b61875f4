"""What an error between us and the broker means, in words that say what to mend."""

import ssl

import pytest
from pika import exceptions

from towerbus.amqp.errors import ChannelClosed, Mismatch, NotAmqp, trouble
from towerbus.amqp.url import parse

BROKER = parse("amqp://u:hunter2@h/v")


class Error(Exception):
    """pyOpenSSL's, as far as it is looked at."""


Error.__module__ = "OpenSSL.SSL"


@pytest.mark.parametrize(
    ("error", "refused", "words"),
    [
        (exceptions.ProbableAuthenticationError("closed"), True, ["login", "'u'", "password"]),
        (exceptions.ConnectionClosedByBroker(403, "ACCESS_REFUSED"), True, ["login", "403"]),
        (exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED"), True, ["virtual host 'v'", "530"]),
        (exceptions.ProbableAccessDeniedError("closed"), True, ["'v'", "'u'"]),
        (exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"), False, ["320", "shutdown"]),
        (exceptions.IncompatibleProtocolError("x"), False, ["before a word", "TLS"]),
        (NotAmqp("no AMQP 0-9-1 is spoken there"), True, ["no AMQP"]),
        (exceptions.AMQPHeartbeatTimeout("no heartbeat for 12 s"), False, ["no heartbeat for 12 s"]),
        (ChannelClosed(403, "ACCESS_REFUSED - access to exchange 'e'"), True, ["'u'", "permission", "'e'"]),
        (ChannelClosed(404, "NOT_FOUND - no queue 'q' in vhost 'v'"), False, ["towerbus-worker", "'q'"]),
        (ChannelClosed(404, "NOT_FOUND - home node 'n' of durable queue 'q' is down"), False, ["home node"]),
        (Mismatch("queue q is another one", "delete it"), True, ["queue q is another one: delete it"]),
        (ConnectionRefusedError(111, "Connection refused"), False, ["refused"]),
        (TimeoutError(), False, ["TimeoutError"]),
        (ssl.SSLCertVerificationError(1, "certificate verify failed: IP address mismatch"), True, ["cacertfile"]),
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"), True, ["certfile"]),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), True, ["is TLS spoken"]),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), False, ["EOF"]),
        (Error([("SSL routines", "", "certificate verify failed")]), True, ["cacertfile"]),
        (Error([("SSL routines", "", "tlsv1 alert unknown ca")]), True, ["certfile and keyfile"]),
        (Exception("the certificate of merit is late"), False, ["merit"]),
    ],
)  # fmt: skip
def test_words(error, refused, words):
    found = trouble(error, BROKER)
    assert found.refused is refused
    for word in words:
        assert word in found.text
    assert "hunter2" not in found.text
    assert found.text.startswith("amqp://u@h:5672/v")
