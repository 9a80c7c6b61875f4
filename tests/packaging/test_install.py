"""`make install` and `make uninstall` into a directory, as a package is built."""

import re
import subprocess
from pathlib import Path

import pytest
from support.running import environment

ROOT = Path(__file__).parents[2]
UNITS = sorted(path.name for path in (ROOT / "etc" / "systemd").glob("*.[st][eoa]*") if path.suffix != ".sysusers")

ENABLED = [
    "towerbus-server.socket",
    "towerbus-server@1.service",
    "towerbus-worker@2.service",
    "towerbus-bridge@awx.service",
]


def make(target, dest, check=True, **variables):
    command = ["make", "-C", str(ROOT), target, f"DESTDIR={dest}", "PREFIX=/opt/elsewhere"]
    return subprocess.run(command, check=check, capture_output=True, text=True, env=environment() | variables)


@pytest.fixture(scope="module")
def dest(tmp_path_factory):
    dest = tmp_path_factory.mktemp("dest")
    make("install", dest)
    return dest


def test_what_is_installed_works_and_names_its_own_place(dest):
    app = dest / "opt/elsewhere/lib/towerbus"
    said = subprocess.run(
        [app / "bin/python", app / "bin/towerbus", "--help"], capture_output=True, text=True, cwd=dest
    )
    assert "emit" in said.stdout, said.stderr
    assert str(dest) not in (app / "bin/twistd").read_text()
    assert (app / "bin/twistd").read_text().startswith("#!/opt/elsewhere/lib/towerbus/bin/python")
    assert (dest / "opt/elsewhere/bin/towerbus").readlink() == Path("/opt/elsewhere/lib/towerbus/bin/towerbus")
    installed = dest / "etc/systemd/system"
    assert sorted(path.name for path in installed.iterdir()) == UNITS
    for unit in installed.glob("*.service"):
        assert "ExecStart=/opt/elsewhere/lib/towerbus/bin/twistd " in unit.read_text()
        assert "/usr/local" not in unit.read_text()
    assert (dest / "etc/towerbus/credentials").stat().st_mode & 0o777 == 0o700


def test_an_upgrade_that_fails_leaves_what_was_there(dest):
    done = make("install", dest, check=False, PIP_NO_INDEX="1")
    assert done.returncode != 0
    assert [path.name for path in (dest / "opt/elsewhere/lib").iterdir()] == ["towerbus"]
    test_what_is_installed_works_and_names_its_own_place(dest)


def test_an_upgrade_keeps_the_configuration_and_an_uninstall_leaves_nothing_else(dest):
    config = dest / "etc/towerbus/towerbus.toml"
    config.write_text("outbox = 5000\n")
    (dest / "opt/elsewhere/lib/towerbus/left_by_an_older_version").touch()
    make("install", dest)
    assert config.read_text() == "outbox = 5000\n"
    assert not list((dest / "opt/elsewhere/lib").glob("**/left_by*"))
    # What `systemctl enable` does.
    for wanted, units in {"multi-user.target": ["towerbus.target"], "towerbus.target": ENABLED}.items():
        links = dest / "etc/systemd/system" / f"{wanted}.wants"
        links.mkdir()
        for unit in units:
            (links / unit).symlink_to("/etc/systemd/system/" + re.sub("@.*[.]", "@.", unit))
    make("uninstall", dest)
    left = {str(path.relative_to(dest)) for path in dest.rglob("*") if not path.is_dir()}
    assert left == {"etc/towerbus/towerbus.toml"}
    # The directory of a target that is there no more; the other one is the system's.
    assert [path.name for path in (dest / "etc/systemd/system").iterdir()] == ["multi-user.target.wants"]


def test_a_prefix_that_is_no_path_is_named(tmp_path):
    done = subprocess.run(
        ["make", "-C", str(ROOT), "install", f"DESTDIR={tmp_path}", "PREFIX=here"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "PREFIX: got 'here'" in done.stderr
