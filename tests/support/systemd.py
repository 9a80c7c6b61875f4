"""A real systemd, as PID 1 of a namespace of its own, with the project's units: nothing of the machine's is started."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from support.running import wait_for

import towerbus

UNITS = Path(__file__).parents[2] / "etc" / "systemd"
SYSTEMD = Path("/lib/systemd/systemd")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
UP = {"running", "degraded", "starting"}
TARGETS = ("default", "sysinit", "basic", "shutdown", "sockets", "exit")
_PRIVATE = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--ipc", "--uts"]
_BEGIN = """
set -e
mount -t tmpfs -o mode=755 tmpfs /srv
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /srv/python /srv/venv /srv/project /srv/place
mount --bind "$PYTHON" /srv/python
mount --bind "$VENV" /srv/venv
mount --bind "$PROJECT" /srv/project
mount --bind "$PLACE" /srv/place
# What services leave behind is not left on this machine.
for own in /tmp /var/tmp /var/lib; do mount -t tmpfs -o mode=1777 tmpfs $own; done
# Shared, as a systemd at boot makes it: credentials come by a mount that has to be seen here.
mount --make-rshared /
exec env -i PATH="$PATH" SYSTEMD_UNIT_PATH=/srv/place/units container=lxc /lib/systemd/systemd --system --log-target=console
"""


def reason_to_skip():
    """Why there can be no systemd here; empty where there can."""
    if os.geteuid() != 0:
        return "a namespace with a systemd in it needs root"
    if not SYSTEMD.exists() or shutil.which("nsenter") is None:
        return "systemd is not installed: apt-get install systemd"
    tried = subprocess.run([*_PRIVATE, "mount", "-t", "tmpfs", "tmpfs", "/srv"], capture_output=True, text=True)
    return f"no namespace can be made here: {tried.stderr.strip()}" if tried.returncode else ""


class Systemd:
    """A systemd with the project's units, of which only paths, user, ports and the watchdog's seconds are others.

    Args:
        directory: Where everything of it is.
        bus: The broker's URL; it is a credential.
        port: The WebSocket's; the HTTP listeners' is the next.
        config: The text of towerbus.toml.
        watchdog: Seconds.
    """

    def __init__(self, directory, bus, port, config, watchdog=3):
        self.directory, self.port = directory, port
        units, etc = directory / "units", directory / "etc"
        for made in (units, etc / "credentials", etc / "bridges", directory / "log"):
            made.mkdir(parents=True)
        directory.chmod(0o755)
        (etc / "credentials" / "bus").write_text(bus + "\n")
        (etc / "towerbus.toml").write_text(config)
        for name in TARGETS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        for unit in UNITS.glob("towerbus*.[st][eoa]*"):
            (units / unit.name).write_text(self._changed(unit.read_text()))
            if unit.suffix == ".service":
                more = units / f"{unit.name}.d"
                more.mkdir()
                (more / "test.conf").write_text(
                    f"[Service]\nWatchdogSec={watchdog}\nEnvironment=PYTHONPATH=/srv/project:/srv/venv/lib/python{VERSION}/site-packages\n"
                    "Environment=LD_LIBRARY_PATH=/srv/python/lib\n"
                    "StandardOutput=append:/srv/place/log/%N.log\nStandardError=inherit\n"
                )

    def _changed(self, text):
        for old, new in {
            "/usr/local/lib/towerbus/bin/twistd": f"/srv/python/bin/python{VERSION} /srv/venv/bin/twistd",
            "/etc/towerbus": "/srv/place/etc",
            "User=towerbus": "User=daemon",
            "Group=towerbus-emit": "Group=games",
            "SupplementaryGroups=towerbus": "SupplementaryGroups=daemon",
            "Group=towerbus": "Group=daemon",
            "127.0.0.1:8051": f"127.0.0.1:{self.port}",
            "tcp:8052": f"tcp:{self.port + 1}",
        }.items():
            text = text.replace(old, new)
        return text

    def __enter__(self):
        self._before = set(_cgroups())
        project = Path(towerbus.__file__).parents[1]
        variables = {
            "PYTHON": sys.base_prefix,
            "VENV": sys.prefix,
            "PROJECT": str(project),
            "PLACE": str(self.directory),
        }
        with (self.directory / "systemd.log").open("wb") as sink:
            self._process = subprocess.Popen(
                [*_PRIVATE, "sh", "-c", _BEGIN], env=os.environ | variables, stdout=sink, stderr=sink
            )
        try:
            wait_for(lambda: self._init() and self.ask("is-system-running") in UP, 20, "systemd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason):
        self._process.kill()
        self._process.wait()
        # Its control groups are left behind, and empty.
        until = time.monotonic() + 5
        while left := [path for path in _cgroups() if path not in self._before]:
            for path in sorted(left, key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):
                    path.rmdir()
            if time.monotonic() > until:
                break
            time.sleep(0.05)

    def _init(self):
        """The process id of systemd, as this namespace sees it."""
        found = subprocess.run(["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True).stdout.split()
        return found[0] if found else None

    def run(self, *command, check=True):
        """Run a command among its processes."""
        done = subprocess.run(
            ["nsenter", "-t", self._init(), "-m", "-p", "-i", "-u", *command],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout.strip()

    def systemctl(self, *words):
        return self.run("systemctl", *words)

    def ask(self, *words):
        """The same, whatever it says."""
        return self.run("systemctl", *words, check=False)

    def show(self, unit, key):
        """A property of a unit's."""
        return self.ask("show", unit, "-p", key, "--value")

    def await_shown(self, unit, key, condition, seconds=40):
        """Wait until a property is as wanted; returns it."""
        seen = []

        def shown():
            seen[:] = [self.show(unit, key)]
            return condition(seen[0])

        try:
            wait_for(shown, seconds, f"{key} of {unit}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}\n{self.logs()}") from None
        return seen[0]

    def signal(self, unit, name):
        self.run("kill", f"-{name}", self.show(unit, "MainPID"))

    def log(self, unit):
        path = self.directory / "log" / f"{unit}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def logs(self):
        """All that was logged."""
        files = [self.directory / "systemd.log", *sorted((self.directory / "log").iterdir())]
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in files)


def _cgroups():
    """The control groups below ours that a systemd makes."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
            base = root / controllers.removeprefix("name=") / path.lstrip("/")
            for name in ("system.slice", "init.scope", "user.slice"):
                for directory, _, _ in os.walk(base / name):
                    yield Path(directory)
