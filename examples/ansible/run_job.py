"""Run a playbook on this machine and broadcast what Tower broadcasts while a job runs.

Statuses go to jobs-status_changed, each event of the runner to job_events-<id>, and how many there were to
jobs-summary. The playbook never waits for the broadcast, and does not fail with it.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ansible_runner
from emission import Emission, Item, Outcome
from tower_events import job_event, job_status, job_summary, sendable, size

from towerbus import Emitter

SITE = Path(__file__).parent / "project" / "site.yml"
INVENTORY = 'localhost ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"\n'
MAX_PAYLOAD = 1024 * 1024
"""Bytes that the server takes in one payload."""

GRACE = 5.0
"""Seconds that a canceled playbook gets to end its tasks itself."""

NOT_CONFIRMED, CANCELED = 3, 130
EXIT_CODES = f"""exit codes:
  0   the playbook was successful and every event is confirmed
  1   the playbook failed
  {NOT_CONFIRMED}   events could not be confirmed, however the playbook ended
  {CANCELED} it was canceled (Ctrl-C; a second one gives up what is not confirmed)
"""


class Job:
    """One run of a playbook, as its broadcast tells it. The callbacks are ansible-runner's.

    Args:
        id_: The job's id.
        put: Takes an event to be sent, at once.
    """

    def __init__(self, id_: int, put: Callable[[Item], None]) -> None:
        self.id = id_
        self.counter = 0
        self.gaps = 0
        self._put = put
        self._run = uuid.uuid4().hex

    def status(self, status: str) -> None:
        """Tell the job's status."""
        finished = datetime.now(UTC)
        self._emit("jobs", "status_changed", job_status(self.id, status, finished=finished), f"{self._run}-{status}")

    def summary(self) -> None:
        """Tell how many events there were."""
        self._emit("jobs", "summary", job_summary(self.id, self.counter), f"{self._run}-summary")

    def event_handler(self, event: Mapping[str, Any]) -> bool:
        """Tell an event; False keeps the runner from writing it to disk.

        The runner counts in the thread that calls this, one event after the other, so that counters come in order and
        without gaps (`OutputEventFilter` in ansible_runner/utils). Nothing is held back; a gap would be noticed.
        """
        payload = sendable(job_event(self.id, event), MAX_PAYLOAD)
        self.gaps += payload["counter"] != self.counter + 1
        self.counter = payload["counter"]
        self._emit("job_events", str(self.id), payload, f"{self._run}-{payload['uuid']}-{self.counter}")
        return False

    def status_handler(self, status: Mapping[str, Any], runner_config: object = None) -> None:  # noqa: ARG002
        """Tell that the playbook runs; its end is told after its events."""
        if status["status"] == "running":
            self.status("running")

    def _emit(self, group: str, type_: str, payload: dict[str, Any], id_: str) -> None:
        self._put(Item(group, type_, payload, id_, size(payload)))


class Cancel:
    """Ends the playbook when a signal says so: politely first, then the runner kills it.

    Killing at once would leave the running task behind: Ansible's workers are in sessions of their own.

    Args:
        give_up: Called by the second signal, or by the first one after the playbook has ended.
    """

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self.asked = False
        self.ended = False
        self._told = False
        self._deadline = 0.0
        self._give_up = give_up
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def callback(self) -> bool:
        """True when the runner is to kill the playbook; it asks each second."""
        if self.asked:
            self._tell()
        return self.asked and time.monotonic() > self._deadline

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.asked or self.ended:
            self._give_up("interrupted")
            return
        self.asked = True
        self._deadline = time.monotonic() + GRACE
        self._tell()

    def _tell(self) -> None:
        """Interrupt the playbook, once: it is the only child, of the main thread like this."""
        if self._told:
            return
        # Where /proc does not tell, or the child has just ended, the runner does without.
        with suppress(OSError):
            for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
                os.kill(int(child), signal.SIGINT)
                self._told = True


def play(job: Job, cancel: Cancel, arguments: argparse.Namespace) -> str:
    """Run the playbook in a directory that is gone afterwards.

    Returns:
        The job's final status, in Tower's words.
    """
    with tempfile.TemporaryDirectory(prefix="towerbus-job-") as directory:
        scratch = str(Path(directory, "scratch"))
        Path(directory, "inventory").mkdir()
        Path(directory, "inventory", "hosts").write_text(INVENTORY)
        try:
            runner = ansible_runner.run(
                private_data_dir=directory,
                project_dir=str(arguments.playbook.parent),
                playbook=arguments.playbook.name,
                extravars={"fail": True} if arguments.fail else {},
                envvars=environment(scratch),
                settings={"pexpect_timeout": 1},
                quiet=arguments.quiet,
                event_handler=job.event_handler,
                status_handler=job.status_handler,
                cancel_callback=cancel.callback,
            )
        except Exception as error:  # noqa: BLE001 - whatever it was, the job ended in an error of ours, and clients are told
            say(f"the playbook could not be run: {error!r}")
            return "canceled" if cancel.asked else "error"
    if runner.status == "successful":
        return "successful"
    return "canceled" if cancel.asked else "failed"


def environment(scratch: str) -> dict[str, str]:
    """Make the playbook's environment, such that it leaves nothing behind.

    Args:
        scratch: A directory for what Ansible writes.
    """
    variables = {
        # ansible-playbook stands beside this Python, whether or not its environment is activated.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_LOCAL_TEMP": scratch,
        "ANSIBLE_REMOTE_TEMP": scratch,
    }
    if not Path("~/.ansible").expanduser().exists():
        # Collections and roles are found there, so that it is another one only when there is none.
        variables["ANSIBLE_HOME"] = scratch
    return variables


def run(arguments: argparse.Namespace) -> int:
    """Run the job and broadcast it.

    Returns:
        The exit code.
    """
    emitter = Emitter(arguments.url, arguments.token)
    # The playbook inherits the environment, and the token is none of its business.
    os.environ.pop("TOWERBUS_TOKEN", None)
    emission = Emission(
        lambda batch: emitter.emit_many(
            [{"group": item.group, "type": item.type, "payload": item.payload, "id": item.id} for item in batch]
        ),
        say,
    )
    job = Job(arguments.job_id, emission.put)
    cancel = Cancel(emission.give_up)
    say(f"job {job.id}")
    job.status("pending")
    status = play(job, cancel, arguments)
    cancel.ended = True
    # The final status comes last, so that who sees it has seen everything.
    job.summary()
    job.status(status)
    return report(job, status, emission.finish(arguments.patience))


def report(job: Job, status: str, outcome: Outcome) -> int:
    """Say how it ended, and make the exit code of it."""
    say(f"job {job.id} {status}: {job.counter} events of the runner, {outcome.confirmed} messages confirmed")
    if job.gaps:
        say(f"gaps between the counters of the runner: {job.gaps}")
    if outcome.unconfirmed:
        say(f"{outcome.unconfirmed} messages not confirmed: {outcome.reason}")
    if outcome.unconfirmed or job.gaps:
        return NOT_CONFIRMED
    return {"successful": 0, "canceled": CANCELED}.get(status, 1)


def say(text: str) -> None:
    """Tell the person who runs this; standard output is the playbook's."""
    print(f"run_job: {text}", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and run the job."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="where to emit, such as http://127.0.0.1:8052 [TOWERBUS_URL]")
    parser.add_argument("--token", help="who may emit [TOWERBUS_TOKEN]")
    parser.add_argument("--job-id", type=int, help="the job's id [made]", default=secrets.randbelow(2**31 - 1) + 1)
    parser.add_argument("--playbook", type=Path, default=SITE, help="the playbook to run [%(default)s]")
    parser.add_argument("--fail", action="store_true", help="set the variable `fail`: the playbook here fails then")
    parser.add_argument("--quiet", action="store_true", help="don't show the playbook's output")
    parser.add_argument(
        "--patience", type=float, default=30.0, help="seconds to wait for confirmations after the end [%(default)s]"
    )
    arguments = parser.parse_args(argv)
    arguments.playbook = arguments.playbook.resolve()
    if not arguments.playbook.is_file():
        parser.error(f"--playbook: {arguments.playbook} is not a file")
    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
