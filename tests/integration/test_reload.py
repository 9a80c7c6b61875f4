"""SIGHUP: tokens, keys, access rules and certificates are read again, and no socket is dropped."""

import hashlib
import json
import re
import signal
import socket
import ssl
import subprocess
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from support.certificates import Certificates
from support.running import environment, finish, running_towerbus, start, wait_for
from support.server import BIN
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytestmark = pytest.mark.long

RULES = '[[access]]\ngroups = ["{group}"]\nwho = "everyone"\n'
TOKEN = '[[token]]\nsha256 = "{digest}"\nuser = {user}\nemit = ["*"]\nsubscribe = ["schedules/*"]\n'


def tokens(**users):
    return "".join(
        TOKEN.format(digest=hashlib.sha256(token.encode()).hexdigest(), user=user) for token, user in users.items()
    )


class Place:
    """A `twistd towerbus` with a configuration and tokens that can be written anew."""

    def __init__(self, directory):
        self.directory = directory
        self.config, self.tokens = directory / "towerbus.toml", directory / "tokens.toml"
        self.config.write_text(RULES.format(group="jobs"))
        self.tokens.write_text(tokens(ada=7))

    @contextmanager
    def running(self, *options):
        given = ["--config", str(self.config), "--auth", f"tokens:{self.tokens}", *options]
        with running_towerbus(self.directory, *given) as self.server:
            yield self

    @property
    def log(self):
        return self.server.output.read_text()

    def hup(self, says, times=1):
        """Ask for a reload; wait until the log has said so often what is expected."""
        self.server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.log.count(says) >= times, 20, f"{says!r} in {self.log}")

    @contextmanager
    def client(self, token="ada", **more):
        url = self.server.ws_url.replace("TOKEN", token)
        with connect(url, subprotocols=["towerbus.v1"], close_timeout=1, **more) as client:
            yield Client(client)

    def refuses(self, token):
        with self.client(token) as refused:
            assert refused.read()["code"] == "not_authenticated"
            with pytest.raises(ConnectionClosed) as closed:
                refused.read()
        assert closed.value.rcvd.code == 4401

    def emit(self, topic, number, token="ada"):
        command = [str(BIN / "towerbus"), "emit", "--url", self.server.http_url, "--token", token]
        subprocess.run(
            [*command, *topic, json.dumps({"n": number})], check=True, env=environment(), capture_output=True
        )


class Client:
    def __init__(self, socket):
        self.socket = socket

    def say(self, **message):
        self.socket.send(json.dumps(message))

    def read(self):
        return json.loads(self.socket.recv(timeout=20))

    def subscribed(self, **groups):
        assert "accept" in self.read()
        self.say(groups=groups)
        return self.read()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_access_rules_change_for_those_who_are_connected(place):
    place.config.write_text(RULES.format(group="jobs") + RULES.format(group="inventories"))
    with place.running(), place.client() as client, place.client() as whole:
        client.subscribed(jobs=["x"], inventories=["y"])
        whole.subscribed(jobs=["*"], inventories=["*"])
        place.config.write_text(RULES.format(group="inventories"))
        place.hup("reloaded: 1 access rules")
        left = client.read()
        assert left["groups_current"] == ["inventories-y"]
        assert left["groups_left"] == left["groups_denied"] == ["jobs-x"]
        assert whole.read()["groups_left"] == ["jobs-*"]
        place.emit(("jobs", "x"), 1)
        place.emit(("inventories", "y"), 2)
        assert client.read()["data"] == {"n": 2}
        assert whole.read()["data"] == {"n": 2}
        # A group that is open again has to be asked for.
        place.config.write_text(RULES.format(group="*"))
        place.hup("reloaded: 1 access rules", 2)
        client.say(groups={"jobs": ["x"]})
        assert client.read()["groups_joined"] == ["jobs-x"]


def test_a_part_of_a_group_that_is_taken_away_is_not_heard_any_more(place):
    with place.running(), place.client() as whole:
        whole.subscribed(jobs=["*"])
        place.emit(("jobs", "secret"), 0)
        assert whole.read()["data"] == {"n": 0}
        place.config.write_text(
            '[[access]]\ngroups = ["jobs"]\ntypes = ["secret"]\nwho = "nobody"\n' + RULES.format(group="jobs")
        )
        place.hup("reloaded: 2 access rules")
        place.emit(("jobs", "secret"), 1)
        place.emit(("jobs", "open"), 2)
        assert whole.read()["data"] == {"n": 2}


def test_a_wrong_configuration_keeps_the_rules_and_says_so(place):
    with place.running(), place.client() as client:
        client.subscribed(jobs=["x"])
        place.config.write_text('[[access]]\ngroups = ["jobs"]\nwho = "noone"\n')
        place.hup("reload_refused")
        assert f"{place.config}: access" in place.log
        assert "stays in force" in place.log
        place.emit(("jobs", "x"), 1)
        assert client.read()["data"] == {"n": 1}


def test_the_service_manager_shows_what_a_reload_could_not_use_until_one_can(place, monkeypatch):
    address = place.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))

        def status():
            while not (found := re.search("^STATUS=(.*)$", manager.recv(4096).decode(), re.MULTILINE)):
                pass
            return found[1]

        with place.running():
            assert status() == "serving 0 clients"
            place.config.write_text('[[access]]\ngroups = ["jobs"]\nwho = "noone"\n')
            place.hup("reload_refused")
            assert status().startswith(f"serving 0 clients; reload refused: {place.config}: access")
            place.config.write_text(RULES.format(group="jobs"))
            place.hup("reloaded: the access rules")
            assert status() == "serving 0 clients"


def test_what_needs_a_restart_is_named(place):
    with place.running():
        place.config.write_text("outbox = 4096\n" + RULES.format(group="jobs"))
        place.hup("reload_needs_restart: ['outbox']")


def test_tokens_come_and_go_and_the_sockets_of_those_that_stay_do_too(place):
    place.tokens.write_text(tokens(ada=7, eve=9))
    with place.running(), place.client() as client, place.client("eve") as eve:
        client.subscribed(jobs=["x"])
        eve.subscribed(jobs=["x"])
        place.tokens.write_text(tokens(ada=7, bob=8))
        place.hup("reloaded: 2 tokens")
        assert eve.read()["code"] == "not_authenticated"
        with pytest.raises(ConnectionClosed) as closed:
            eve.read()
        assert closed.value.rcvd.code == 4401
        place.refuses("eve")
        with place.client("bob") as bob:
            assert bob.read() == {"accept": True, "user": 8}
        place.tokens.write_text("[[token]]\nsha256 = 'short'\n")
        place.hup("reload_refused")
        with place.client("bob") as bob:
            assert bob.read()["accept"]
        place.emit(("jobs", "x"), 1, token="bob")
        assert client.read()["data"] == {"n": 1}


def test_a_key_is_exchanged(place):
    key = place.directory / "key"

    def made(secret):
        key.write_bytes(secret * 32)
        command = [str(BIN / "towerbus"), "token", "--key", str(key), "--user", "9", "--emit", "*"]
        return subprocess.run(command, check=True, env=environment(), capture_output=True, text=True).stdout.strip()

    old = made(b"a")
    with place.running("--auth", f"jwt:{key}"), place.client(old) as client:
        client.subscribed(jobs=["x"])
        new = made(b"b")
        place.hup("reloaded: 1 keys")
        place.refuses(old)
        with place.client(new) as let_in:
            assert let_in.read()["user"] == 9
        key.write_text("short")
        place.hup("reload_refused")
        place.emit(("jobs", "x"), 1, token=new)
        assert client.read()["data"] == {"n": 1}


def endpoint(key, chain, kind="ssl"):
    return f"{kind}:0:interface=127.0.0.1:privateKey={key}:certKey={chain}"


def trusting(certificates, **more):
    context = ssl.create_default_context(cafile=certificates.authority)
    for name, value in more.items():
        setattr(context, name, value)
    return context


def shown(client):
    return client.socket.socket.getpeercert()["serialNumber"]


def test_certificates_are_read_again_when_they_change_and_on_sighup(place):
    certificates = Certificates(place.directory / "pki")
    key, chain = certificates.issue("localhost", "127.0.0.1")
    context = trusting(certificates)
    with place.running("--listen", endpoint(key, chain)), place.client(ssl=context) as first:
        first.subscribed(jobs=["x"])
        certificates.issue("localhost", "127.0.0.1")
        place.hup("reloaded: the certificate")
        with place.client(ssl=context) as second:
            assert shown(second) != shown(first)
            before = chain.read_bytes()
            chain.write_text("no certificate")
            wait_for(lambda: "it holds none; what was read before stays" in place.log, 20, "the refusal")
            with place.client(ssl=context) as third:
                assert shown(third) == shown(second)
            # Without anybody asking for it.
            count = place.log.count("reloaded: the certificate")
            chain.write_bytes(before)
            wait_for(lambda: place.log.count("reloaded: the certificate") > count, 20, "the reload")
        place.emit(("jobs", "x"), 1)
        assert first.read()["data"] == {"n": 1}


@pytest.mark.parametrize("kind", ["ssl", "tls"])
def test_clients_that_check_certificates_get_in_by_good_ones_only(place, kind):
    certificates, foreign = Certificates(place.directory / "pki"), Certificates(place.directory / "foreign")
    key, chain = certificates.issue("localhost", "127.0.0.1")
    with place.running("--listen", endpoint(key, chain, kind)):
        with place.client(ssl=trusting(certificates)) as good:
            assert good.read()["accept"]
            assert good.socket.socket.version() == "TLSv1.3"
        with place.client(ssl=trusting(certificates, maximum_version=ssl.TLSVersion.TLSv1_2)) as older:
            assert older.socket.socket.version() == "TLSv1.2"
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            place.client(ssl=trusting(foreign)).__enter__()
        wrong_host = place.server.ws_url.replace("127.0.0.1", "127.0.0.2")
        with pytest.raises((ssl.SSLCertVerificationError, OSError)):
            connect(wrong_host, ssl=trusting(certificates))
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            place.client(ssl=trusting(certificates), server_hostname="elsewhere.example").__enter__()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        certificates.issue("localhost", "127.0.0.1", not_before=yesterday - timedelta(days=9), not_after=yesterday)
        place.hup("certificate_not_valid")
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            place.client(ssl=trusting(certificates)).__enter__()


def test_tls_before_1_2_is_not_spoken(place):
    certificates = Certificates(place.directory / "pki")
    key, chain = certificates.issue("localhost", "127.0.0.1")
    old = trusting(certificates)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with place.running("--listen", endpoint(key, chain)), pytest.raises((ssl.SSLError, OSError)):
        place.client(ssl=old).__enter__()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda key, chain, other: key.unlink(), "can't be read: No such file"),
        (lambda key, chain, other: key.write_text("nothing"), "wanted a private key in PEM"),
        (lambda key, chain, other: chain.write_text("nothing"), "wanted a certificate in PEM"),
        (lambda key, chain, other: key.write_bytes(other.read_bytes()), "is not the key of the certificate"),
    ],
    ids=["missing", "no key", "no certificate", "another key"],
)
def test_a_certificate_that_can_not_be_used_is_a_message_at_start(tmp_path, change, says):
    certificates, other = Certificates(tmp_path / "pki"), Certificates(tmp_path / "other")
    key, chain = certificates.issue("localhost")
    change(key, chain, other.issue("localhost")[0])
    command = [str(BIN / "twistd"), "-n", "--pidfile=", "towerbus", "--listen", endpoint(key, chain)]
    code, _, errors = finish(start(command, tmp_path), 20)
    assert code == 1
    assert says in errors
    assert "--listen" in errors
    assert "Traceback" not in errors


def test_without_a_terminal_it_goes_on_after_sighup(place):
    with place.running():
        place.hup("reload_begun")
        place.hup("reload_begun", 2)
        assert place.server.process.poll() is None
