"""Ten thousand clients of one server are cut off and come back at once with their positions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.server import running_server
from support.worker import running_worker

from towerbus import Emitter

HERE = Path(__file__).parent
EVENTS = 30
CLIENTS = 10_000
HANDFUL = 8


class Crowd:
    """The crowd's process."""

    def __init__(self, port, token, count):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "crowd.py"), str(port), token, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        print(command, answer, flush=True)
        assert not answer["faults"], (command, answer)
        return answer["seconds"]

    def stop(self):
        self.process.kill()
        self.process.communicate()


def emit(emitter, begin, count):
    for number in range(begin, begin + count):
        emitter.emit_many(
            [
                {"group": "jobs", "type": "status_changed", "payload": {"n": number}},
                {"group": "job_events", "type": number % 100, "payload": {"n": number}},
            ]
        )


@pytest.mark.soak
@pytest.mark.parametrize("tail_bytes", [32 * 1024 * 1024, 1024], ids=["from the tail", "from the log"])
def test_ten_thousand_come_back_at_once(tmp_path, broker, vhost, tail_bytes):
    with running_worker(tmp_path, vhost), running_server(tmp_path, vhost, "--tail-bytes", str(tail_bytes)) as server:
        server.await_ready()
        crowd = Crowd(server.port("--listen"), server.token, CLIENTS)
        try:
            crowd("join")
            with Emitter(server.http_url, server.token, timeout=60) as emitter:
                emit(emitter, 0, EVENTS)
                crowd(f"until {EVENTS - 1}")
                crowd("cut")
                emit(emitter, EVENTS, EVENTS)
                readers, over = [], threading.Event()
                watching = threading.Thread(target=watch, args=(broker, vhost, readers, over))
                live = threading.Thread(target=emit, args=(emitter, 2 * EVENTS, EVENTS))
                for thread in (watching, live):
                    thread.start()
                crowd("back")
                live.join()
                crowd(f"until {3 * EVENTS - 1}")
                over.set()
                watching.join()
        finally:
            crowd.stop()
        _, metrics = server.get("/metrics")
        recovered = re.search(r'towerbus_catchup_total{outcome="recovered"} (\S+)', metrics)
        print(f"readers of the log, at the most: {max(readers)}; recovered: {recovered[1]}")
        assert max(readers) <= HANDFUL
        assert float(recovered[1]) == CLIENTS
        server.await_ready()


def watch(broker, vhost, readers, over):
    """Count who reads the log, as the broker sees it."""
    while not over.is_set():
        readers.append(sum(consumer["queue"] == "towerbus.log" for consumer in broker.consumers(vhost)))
        time.sleep(0.1)
