"""A real nginx with the files that are shipped: only their ports and paths are put where a test may use them."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from support.certificates import Certificates
from support.ports import Ports
from support.running import wait_for

SHIPPED = Path(__file__).parents[2] / "etc" / "nginx"
PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"
MAIN = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events { worker_connections 1024; }
http {
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    access_log access.log;
    include towerbus.conf;
}
"""
STOPS_WITHIN = 20


class Nginx:
    """A running nginx.

    Attributes:
        plain: The port that speaks HTTP.
        secure: The port that speaks HTTPS.
        authority: The file with the authority of its certificate.
    """

    def __init__(self, directory, ports, authority):
        self._directory, self.authority = directory, authority
        self.plain, self.secure = ports

    def url(self, path="/websocket/", scheme="wss"):
        port = self.secure if scheme in {"wss", "https"} else self.plain
        return f"{scheme}://127.0.0.1:{port}{path}"

    @property
    def access_log(self):
        """What the site has logged."""
        return (self._directory / "towerbus.log").read_text()

    @property
    def written(self):
        """All that it has written into any log."""
        return "".join(path.read_text() for path in self._directory.glob("*.log"))


def rendered(directory, changes):
    """Copy the shipped files, with changes; each must change something.

    Args:
        directory: Where to.
        changes: What is put in the place of what.

    Returns:
        The authority of the certificate that is there as well.
    """
    shutil.copytree(SHIPPED, directory, dirs_exist_ok=True)
    certificates = Certificates(directory / "tls")
    key, chain = certificates.issue("127.0.0.1")
    shutil.copy(key, directory / "key.pem")
    shutil.copy(chain, directory / "certificate.pem")
    files = sorted(directory.rglob("*.conf"))
    for old, new in changes.items():
        assert any(old in file.read_text() for file in files), f"{old!r} stands nowhere"
        for file in files:
            file.write_text(file.read_text().replace(old, new))
    return certificates.authority


def production(directory, ports, websocket, http=(1,), application=1, changes=None):
    """The files of production, as `rendered`: its ports, and those of the upstreams."""
    plain, secure = ports
    changes = {
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen [::]:80;": "",
        "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
        "listen [::]:443 ssl;": "",
        "/var/log/nginx/": f"{directory}/",
        "/etc/towerbus/tls/": f"{directory}/",
        "server 127.0.0.1:8051 fail_timeout=2s;": "\n".join(f"server {_at(port)} fail_timeout=2s;" for port in websocket),
        "server 127.0.0.1:8052 fail_timeout=2s;": "\n".join(f"server {_at(port)} fail_timeout=2s;" for port in http),
        "127.0.0.1:8050": _at(application),
        **(changes or {}),
    }  # fmt: skip
    authority = rendered(directory, changes)
    (directory / "nginx.conf").write_text(MAIN)
    return authority


def development(directory, ports, websocket, http, application):
    """The files of development, as `rendered`."""
    plain, secure = ports
    return rendered(
        directory,
        {
            "127.0.0.1:8013": f"127.0.0.1:{plain}",
            "127.0.0.1:8043": f"127.0.0.1:{secure}",
            "127.0.0.1:8050": _at(application),
            "127.0.0.1:8051": _at(websocket),
            "127.0.0.1:8052": _at(http),
            "/dev/stdout": f"{directory}/towerbus.log",
            "/dev/stderr": f"{directory}/error.log",
        },
    )


def checked(directory, file="nginx.conf"):
    """What `nginx -t` says of a configuration."""
    command = [PROGRAM, "-p", str(directory), "-c", str(directory / file), "-t"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


@contextmanager
def running_nginx(directory, *upstreams, make=production, file="nginx.conf", **more):
    """Start it; it is ended with the context.

    Args:
        directory: Where its files are; it is made.
        *upstreams: For `make`.
        make: Makes the files.
        file: The one that it starts with.
        **more: For `make`.
    """
    ports = Ports()
    authority = make(directory, ports.numbers[:2], *upstreams, **more)
    output = directory / "output.log"
    with output.open("wb") as sink:
        command = [PROGRAM, "-p", str(directory), "-c", str(directory / file)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT)
    try:
        # It listens before it writes its number.
        wait_for(lambda: (directory / "nginx.pid").exists() or process.poll() is not None, 20, "nginx")
        assert process.poll() is None, output.read_text()
        yield Nginx(directory, ports.numbers[:2], authority)
    finally:
        process.terminate()
        try:
            process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        ports.release()


def _at(port):
    return f"127.0.0.1:{port}"
