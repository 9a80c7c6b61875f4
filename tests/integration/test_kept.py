"""Nothing survives a test run that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.kept import KeptDirectory
from support.running import wait_for

RUN = """
import os, subprocess, sys
from support.kept import KeptDirectory
kept = KeptDirectory("towerbus-kept-")
# A child that leaves a grandchild behind in a session of its own, with a file in the directory.
child = subprocess.run(["setsid", "--fork", "sh", "-c", "echo $$ > pid.new && mv pid.new pid; exec sleep 600"],
                       cwd=kept.path, env=os.environ | kept.mark)
holder = os.fork()
if not holder:
    {forked}
print(kept.path, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "forked", ["os._exit(0)", "import time; time.sleep(600)"], ids=["alone", "a forked child holds all files"]
)
def test_a_killed_run_leaves_neither_processes_nor_files(forked):
    command = [sys.executable, "-c", RUN.format(forked=forked)]
    run = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    directory = Path(run.stdout.readline().strip())
    wait_for((directory / "pid").exists, 10, "the grandchild")
    orphan = int((directory / "pid").read_text())
    assert os.getsid(orphan) != os.getsid(run.pid)
    os.kill(run.pid, signal.SIGKILL)
    wait_for(lambda: not directory.exists(), 20, "the directory's end")
    assert _ended(orphan)
    os.killpg(run.pid, signal.SIGKILL)  # the forked child, which is no business of the keeper's
    run.communicate()


def test_it_ends_what_it_marked_and_nothing_else():
    kept, other = KeptDirectory("towerbus-kept-"), KeptDirectory("towerbus-kept-")
    (kept.path / "sub").mkdir()
    (kept.path / "sub" / "file").touch()
    ours = subprocess.Popen(["sleep", "600"], env=os.environ | kept.mark)
    theirs = subprocess.Popen(["sleep", "600"], env=os.environ | other.mark)
    wait_for(lambda: kept.processes() == [ours.pid] and other.processes() == [theirs.pid], 10, "both")
    kept.remove()
    assert ours.wait(10) == -signal.SIGKILL
    assert not kept.path.exists()
    assert theirs.poll() is None
    assert other.path.exists()
    other.remove()
    assert theirs.wait(10) == -signal.SIGKILL


def _ended(pid):
    """Whether a process has ended; where nobody collects orphans it stays as a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return True
    return state == "Z"
