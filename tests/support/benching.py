"""`towerbus bench` as a process, and its figures."""

import json
import subprocess
import sys
from pathlib import Path

from support.running import environment

TOWERBUS = str(Path(sys.executable).with_name("towerbus"))


def run_bench(*words, code=0):
    done = subprocess.run([TOWERBUS, "bench", *words], capture_output=True, text=True, timeout=120, env=environment())
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def measured(bus, *words, code=0, url=None):
    done = run_bench(
        "--url", url or bus.ws_url, "--http", bus.http_url, "--patience", "10", "--json", "-", *words, code=code
    )
    return json.loads(done.stdout)
