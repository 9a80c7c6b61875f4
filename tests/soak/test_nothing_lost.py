"""The promise: what was confirmed reaches every entitled v1 client exactly once and in order, whatever is killed or cut.

Server, two workers and RabbitMQ as processes; ten emitters with confirms, half over HTTP and half over AMQP; 100 v1 clients
that resume and 100 of Tower's. Meanwhile all of it is killed with SIGKILL and started again, frozen, cut off and blackholed in
random order. The long run is `make soak`; a short one belongs to the suite.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.ports import Ports
from support.running import environment, wait_for
from support.worker import LogText

from towerbus import Emitter, NotConfirmed
from towerbus.auth.jwt import mint

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
JOBS = 10
V1, TOWER = 100, 100
TOPICS = [("jobs", "status_changed"), *(("job_events", str(job)) for job in range(JOBS))]


class Child:
    """A process that is started again whenever it was killed."""

    def __init__(self, directory, name, *command, pipes=False, **variables):
        self.directory, self.name, self.command, self.pipes, self.variables = directory, name, command, pipes, variables
        self.output = directory / f"{name}.log"
        self.start()

    def start(self):
        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=environment(**self.variables),
                stdin=subprocess.PIPE if self.pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.pipes else sink,
                stderr=sink,
                text=True,
            )

    def kill(self):
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def tail(self):
        return self.output.read_text(errors="replace")[-4000:]


class Installation:
    """Everything that the promise is about, and the ways to harm it."""

    def __init__(self, directory, broker, blocking_proxy, chance):
        self.directory, self.broker, self.chance = directory, broker, chance
        self.url = broker.vhost()
        self.worker_wires = [blocking_proxy(broker.port), blocking_proxy(broker.port)]
        self.server_wire, self.emitter_wire = blocking_proxy(broker.port), blocking_proxy(broker.port)
        self.ports = Ports()
        self.ws, self.http, *_ = self.ports.numbers
        self.client_wire = blocking_proxy(self.ws)
        key = directory / "key"
        key.write_bytes(os.urandom(40))
        self.token = mint(str(key), user="7", subscribe=("*",), emit=("*",))
        twistd = [str(BIN / "twistd"), "-n", "--pidfile="]
        self.workers = [
            Child(directory, f"worker{number}", *twistd, "towerbus-worker", TOWERBUS_BUS=self.through(wire))
            for number, wire in enumerate(self.worker_wires)
        ]
        self.server = Child(
            directory, "server", *twistd, "towerbus-server", "--auth", f"jwt:{key}",
            "--listen", f"tcp:{self.ws}:interface=127.0.0.1", "--http", f"tcp:{self.http}:interface=127.0.0.1",
            TOWERBUS_BUS=self.through(self.server_wire),
        )  # fmt: skip

    def through(self, proxy):
        return self.url.replace(f":{self.broker.port}/", f":{proxy.port}/")

    def harms(self):
        """What may happen, and how often in relation to the others."""
        wires = [*self.worker_wires, self.server_wire, self.emitter_wire]
        return {
            "worker killed": (3, lambda: self.restart(self.chance.choice(self.workers))),
            "server killed": (3, lambda: self.restart(self.server)),
            "broker killed": (2, self.broker_killed),
            "wire cut": (3, lambda: self.chance.choice(wires).cut()),
            "wire cut in a frame": (
                2,
                lambda: self.chance.choice(wires).cut_after(self.chance.randrange(1, 20_000), "to_client"),
            ),
            "clients cut": (2, self.client_wire.cut),
            "wire blackholed": (1, lambda: self.blackholed(self.chance.choice(wires))),
            "worker frozen": (1, lambda: self.frozen(self.chance.choice(self.workers))),
            "broker frozen": (1, self.broker_frozen),
        }

    def restart(self, child):
        child.kill()
        child.start()

    def broker_killed(self):
        self.broker.kill()
        self.broker.start()

    def broker_frozen(self):
        self.broker.freeze()
        time.sleep(self.chance.uniform(1, 4))
        self.broker.thaw()

    def frozen(self, child):
        child.process.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(2, 15))
        child.process.send_signal(signal.SIGCONT)

    def blackholed(self, wire):
        wire.blackhole()
        time.sleep(self.chance.uniform(1, 12))
        wire.heal()

    def harm(self, seconds):
        """Do harm for some time; says what was done."""
        harms = self.harms()
        names, weights = list(harms), [weight for weight, _ in harms.values()]
        end, done = time.monotonic() + seconds, []
        while time.monotonic() < end:
            time.sleep(self.chance.uniform(0.5, 4))
            done += self.chance.choices(names, weights)
            print(f"{time.strftime('%H:%M:%S')} {done[-1]}", flush=True)
            harms[done[-1]][1]()
        for wire in (*self.worker_wires, self.server_wire, self.emitter_wire, self.client_wire):
            wire.heal()
        return done

    def stop(self):
        for child in (*self.workers, self.server):
            child.kill()
        self.ports.release()


def run(directory, broker, blocking_proxy, seconds, seed):
    chance = random.Random(seed)
    print(f"seed {seed}")
    place = Installation(directory, broker, blocking_proxy, chance)
    children = []
    try:
        wait_for(lambda: "fence_written" in "".join(worker.tail() for worker in place.workers), 30, "the fence")
        broker.settle()
        watchers = Child(
            directory, "watchers", sys.executable, str(HERE / "watchers.py"), f"ws://127.0.0.1:{place.client_wire.port}/websocket/",
            place.token, str(V1), str(TOWER), str(JOBS), pipes=True,
        )  # fmt: skip
        assert watchers.process.stdout.readline() == "watching\n", watchers.tail()
        emit = [sys.executable, str(HERE / "emitters.py"), str(directory)]
        http = f"http://127.0.0.1:{place.http}"
        emitters = [
            Child(directory, "http", *emit, "h", "5", str(JOBS), "40", http, place.token, pipes=True),
            Child(directory, "amqp", *emit, "a", "5", str(JOBS), "40", place.through(place.emitter_wire), pipes=True),
        ]
        children = [watchers, *emitters]
        time.sleep(2)
        done = place.harm(seconds)
        said = [emitter.process.communicate(timeout=120)[0] for emitter in emitters]
        mark(http, place.token)
        watchers.process.stdin.write(f"finish {directory}\n")
        watchers.process.stdin.flush()
        verdict = json.loads(watchers.process.stdout.readline())
        print(f"{len(done)} harms; {verdict}; {said}")
        for text in said:
            assert text.count("confirmed,") == 5, text
        assert verdict["confirmed"] > seconds, verdict
        assert not verdict["faults"], json.dumps(verdict, indent=1)
        in_the_log(place.url, directory)
    finally:
        place.stop()
        for child in children:
            child.kill()


def mark(http, token):
    """Emit the last event of each topic."""
    with Emitter(http, token) as emitter:
        for group, type_ in TOPICS:
            for attempt in range(20):
                try:
                    emitter.emit(
                        group,
                        type_,
                        {"emitter": "marker", "n": 0, "topic": f"{group}-{type_}"},
                        f"marker-{group}-{type_}",
                    )
                    break
                except NotConfirmed:
                    assert attempt < 19, f"no marker on {group}-{type_}"


def in_the_log(url, directory):
    """Whatever was confirmed stands in the log exactly once."""
    confirmed = {line.split()[0] for path in directory.glob("confirmed-*") for line in path.read_text().splitlines()}
    with LogText(url) as log:
        ids = log.await_events(len(confirmed) + len(TOPICS))
        assert len(ids) == len(set(ids)), "an event stands in the log twice"
        assert confirmed <= set(ids)


@pytest.mark.parametrize("seed", [random.randrange(10**6)])
def test_nothing_is_lost_in_half_a_minute(tmp_path, own_broker, blocking_proxy, seed):
    run(tmp_path, own_broker, blocking_proxy, 25, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [random.randrange(10**6) for _ in range(3)])
def test_nothing_is_lost_in_two_minutes(tmp_path, own_broker, blocking_proxy, seed):
    run(tmp_path, own_broker, blocking_proxy, 120, seed)
