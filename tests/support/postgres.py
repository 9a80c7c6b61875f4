"""A private PostgreSQL for tests. Nothing of a server that already runs on the machine is touched, and all of it ends with
the process that started it, also when that is killed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from support.kept import KeptDirectory
from support.ports import Ports

STARTS_WITHIN = 60.0
STOPS_WITHIN = 30.0
MISSING = "PostgreSQL is not installed: `make test` installs it as root; otherwise: sudo apt-get install postgresql"
SETTINGS = {
    "fsync": "off",  # it is killed, but the machine's power stays
    "listen_addresses": "127.0.0.1",
    "max_connections": "60",
    "max_prepared_transactions": "5",
    "shared_buffers": "16MB",
}


def tools():
    """The newest installed server's programs; Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    assert found, MISSING
    return found[-1].parent


class Postgres:
    """A server with a superuser `tb`, whom everybody may be, and a database `tb`; `start` and `close`, or a context manager.

    It does not run as root, which it would refuse: then it runs as the user `postgres`, whom Debian's package has made.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        url: Of its database.
    """

    def __init__(self):
        self._kept, self._server = None, None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason):
        self.close()

    def start(self):
        """Start it, and wait until it answers."""
        if self._kept is None:
            self._prepare()
        assert not self.running, "it runs already"
        settings = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
        command = ["postgres", "-D", self._data, "-p", str(self.port), "-k", str(self._kept.path), *settings]
        with self._console.open("ab") as sink:
            self._server = self._spawn(command, sink)
        until = time.monotonic() + STARTS_WITHIN
        while not self._answers():
            assert self.running, f"PostgreSQL has ended with {self._server.returncode}:\n{self.log}"
            assert time.monotonic() < until, f"PostgreSQL does not answer:\n{self.log}"
            time.sleep(0.05)

    def kill(self):
        """End it as a crash does: all of its processes at once."""
        processes = self._processes()
        for pid in processes:
            _signal(pid, signal.SIGKILL)
        self._server.wait(STOPS_WITHIN)
        until = time.monotonic() + STOPS_WITHIN
        while any(_parent(pid) is not None for pid in processes):
            assert time.monotonic() < until, "its processes are still there"
            time.sleep(0.01)

    def stop(self):
        """Stop it in order, at once: connections are ended."""
        self._server.send_signal(signal.SIGINT)
        self._server.wait(STOPS_WITHIN)

    def freeze(self):
        """Let all of its processes hang: connections stay open, nothing is answered."""
        for pid in self._processes():
            _signal(pid, signal.SIGSTOP)

    def thaw(self):
        """Let it go on."""
        for pid in self._processes():
            _signal(pid, signal.SIGCONT)

    def recover(self):
        """Make it serve again, whatever was done to it."""
        self.thaw()
        if not self.running:
            self.start()

    def database(self, name):
        """Make a database, and return its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url_of(name)

    def url_of(self, name, user="tb"):
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    @property
    def url(self):
        return self.url_of("tb")

    @property
    def running(self):
        """Whether there is a process; a frozen one counts."""
        return self._server is not None and self._server.poll() is None

    @property
    def log(self):
        """All that it has logged since the first start."""
        return self._console.read_text(errors="replace")

    def close(self):
        """End everything and remove the directory."""
        if self._kept is None:
            return
        self._kept.remove()
        if self._server is not None:
            self._server.wait()
        self._ports.release()
        self._kept = None

    def _prepare(self):
        self._tools = tools()
        self._ports = Ports()
        self.port = self._ports.numbers[0]
        self._kept = KeptDirectory("towerbus-postgres-")
        self._console = self._kept.path / "console.log"
        self._data = str(self._kept.path / "data")
        self._as = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self._kept.path, user.pw_uid, user.pw_gid)
            self._as = [shutil.which("setpriv"), f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        command = ["initdb", "-D", self._data, "-U", "tb", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        with self._console.open("ab") as sink:
            made = self._spawn(command, sink)
        assert made.wait(STARTS_WITHIN) == 0, self.log
        self._databases = False

    def _spawn(self, command, sink):
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return subprocess.Popen(
            [*self._as, str(self._tools / command[0]), *command[1:]],
            cwd="/",
            env=inherited | self._kept.mark,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _answers(self):
        try:
            if not self._databases:
                with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
                    connection.execute("CREATE DATABASE tb")
                self._databases = True
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _processes(self):
        """The server's process, and those that it has started. They overwrite their environment, so no mark is in it."""
        if not self.running:
            return []
        children = [
            int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _parent(entry) == self._server.pid
        ]
        return [self._server.pid, *children]


def _parent(pid):
    """A process's parent; None where there is no such process, or only a zombie."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state == "Z" else int(parent)


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
