"""Some emitters in one process: each emits, waits for its confirmation, tries again with the same id where there is none.

Run as a child: `python emitters.py DIRECTORY NAME THREADS JOBS RATE URL [TOKEN]`. It ends when its standard input is closed.
What was confirmed stands in DIRECTORY/confirmed-NAME: a line each, id and topic, written when it was confirmed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path

from towerbus import Emitter, NotConfirmed

TRIES = 50


def emit(emitter, name, jobs, pause, sink, lock, over):
    """Emit until it is over."""
    chance = random.Random(name)
    number = doubts = 0
    while not over.is_set():
        group, type_ = (
            ("jobs", "status_changed") if chance.random() < 0.2 else ("job_events", str(chance.randrange(jobs)))
        )
        topic, id_ = f"{group}-{type_}", f"{name}-{number}"
        payload = {"emitter": name, "n": number, "topic": topic, "pad": "x" * chance.randrange(300)}
        for _ in range(TRIES):
            try:
                emitter.emit(group, type_, payload, id_)
            except NotConfirmed:
                doubts += 1
                continue
            with lock:
                sink.write(f"{id_} {topic}\n")
                sink.flush()
            break
        else:
            print(f"{name}: {id_} was never confirmed", flush=True)
            return
        number += 1
        time.sleep(pause * chance.uniform(0.5, 1.5))
    print(f"{name}: {number} confirmed, {doubts} doubts", flush=True)


def main(directory, name, threads, jobs, rate, url, token=None):
    over, lock = threading.Event(), threading.Lock()
    emitter = Emitter(url, token, timeout=10)
    with (Path(directory) / f"confirmed-{name}").open("w") as sink:
        running = [
            threading.Thread(
                target=emit, args=(emitter, f"{name}{number}", int(jobs), 1 / float(rate), sink, lock, over)
            )
            for number in range(int(threads))
        ]
        for thread in running:
            thread.start()
        sys.stdin.read()
        over.set()
        for thread in running:
            thread.join()
    emitter.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
