"""A private RabbitMQ for tests, and what they ask of it.

Nothing of a node or an epmd that already runs on the machine is touched, many may run at once, and all of it ends with the
process that started it, also when that is killed.
"""

from __future__ import annotations

import json
import secrets
import time
from urllib.parse import quote, unquote, urlsplit

from support import rabbitmq_files
from support.rabbitmq_node import Node

ALARMS = {
    "memory": (
        "vm_memory_monitor:set_vm_memory_high_watermark(0.00000001)",
        "vm_memory_monitor:set_vm_memory_high_watermark(0.4)",
    ),
    "disk": ('rabbit_disk_monitor:set_disk_free_limit("1000000GB")', 'rabbit_disk_monitor:set_disk_free_limit("50MB")'),
}
"""How each alarm is raised and cleared."""


class Broker(Node):
    """A node with a user `tb`, whose password is `tb`, and a virtual host `tb`."""

    def recover(self):
        """Make it serve again, whatever was done to it."""
        self.thaw()
        if not self.running:
            self.launch()
        self.await_ready()
        self.clear_alarm()

    @property
    def url(self):
        """The AMQP URL of the virtual host that is always there."""
        return self.url_of("tb")

    def url_of(self, vhost, *, tls=False):
        """The AMQP URL of a virtual host, by its name or another URL of it."""
        scheme, port = ("amqps", self.tls_port) if tls else ("amqp", self.port)
        return f"{scheme}://tb:tb@127.0.0.1:{port}/{quote(_name(vhost), safe='')}"

    @property
    def management_url(self):
        return f"http://tb:tb@127.0.0.1:{self.management_port}"

    def vhost(self, name=None):
        """Make a virtual host (20 ms), and return its AMQP URL."""
        name = name or f"v{secrets.token_hex(6)}"
        self.api("PUT", f"/api/vhosts/{quote(name, safe='')}", {})
        self.api("PUT", f"/api/permissions/{quote(name, safe='')}/tb", rabbitmq_files.EVERYTHING)
        return self.url_of(name)

    def drop_vhost(self, vhost):
        """Remove a virtual host, given by its name or its URL, with everything in it."""
        self.api("DELETE", f"/api/vhosts/{quote(_name(vhost), safe='')}")

    def queues(self, vhost):
        """The queues of a virtual host, by name, as they are now (10 ms).

        Returns:
            For each a dict: type (`classic`, `quorum`, `stream`), durable, exclusive, auto_delete, arguments, state (`running`,
            or `down`: it cannot be used, or not yet), consumers, messages, messages_ready, messages_unacknowledged (for a
            stream: the records that it keeps, and zeros).
        """
        return {queue.pop("name"): queue for queue in self._listed(rabbitmq_files.QUEUES, vhost)}

    def consumers(self, vhost):
        """The consumers of a virtual host, as they are now (10 ms).

        Returns:
            For each a dict: queue, tag, exclusive, ack_required, prefetch_count, active, activity_status (`up`,
            `single_active`, `waiting`), arguments.
        """
        return self._listed(rabbitmq_files.CONSUMERS, vhost)

    def await_queues(self, vhost, seconds=20.0):
        """Wait until no queue of a virtual host is down: for a moment after a start the streams still are."""
        until = time.monotonic() + seconds
        while down := [name for name, queue in self.queues(vhost).items() if queue["state"] == "down"]:
            assert time.monotonic() < until, f"down after {seconds} s: {down}\n{self.tail()}"
            time.sleep(0.02)

    def set_alarm(self, resource):
        """Let the node run out of `"memory"` or of `"disk"`: it reads no more from connections that publish."""
        self.evaluate(ALARMS[resource][0])
        self._await_alarms(lambda alarms: resource in alarms)

    def clear_alarm(self):
        """End the alarms."""
        for _, clear in ALARMS.values():
            self.evaluate(clear)
        self._await_alarms(lambda alarms: not alarms)

    def settle(self):
        """Write what RabbitMQ writes only after a moment.

        A quorum queue or a stream that was declared less than about a second before a kill does not come back: the tables with
        their names are written late. Call this between the two.
        """
        self.evaluate("[ok = dets:sync(Table) || Table <- dets:all()]")

    @property
    def alarms(self):
        """What it is out of."""
        return set(self._asked("[Resource || {{resource_limit, Resource, _}, _} <- rabbit_alarm:get_alarms()]"))

    def _listed(self, expression, vhost):
        name = ",".join(map(str, _name(vhost).encode()))
        return self._asked(expression.replace("VHOST", f"<<{name}>>"))

    def _asked(self, expression):
        return json.loads(self.evaluate(f"io:put_chars(rabbit_json:encode({expression}))"))

    def _await_alarms(self, condition):
        until = time.monotonic() + 10
        while not condition(alarms := self.alarms):
            assert time.monotonic() < until, f"alarms: {alarms}\n{self.tail()}"
            time.sleep(0.02)


def _name(vhost):
    """A virtual host's name, from itself or from a URL."""
    return unquote(urlsplit(vhost).path[1:]) if "://" in vhost else vhost
