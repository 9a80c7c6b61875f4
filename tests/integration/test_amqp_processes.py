"""The emitter over AMQP and the life of processes: forks, gunicorn, exits, TLS; and the command."""

import datetime
import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest
from support import intakes
from support.certificates import Certificates
from support.intakes import connections, numbers, taken
from support.running import environment, finish, wait_for
from support.tls_server import TlsServer

from towerbus import Emitter
from towerbus.errors import BusUnavailable, ConfigError

SECONDS = 60
BIN = Path(sys.executable).parent


@pytest.fixture
def url(vhost):
    """A virtual host with all its objects."""
    intakes.declare_now(vhost)
    return vhost


def script(url, text, code=0, **variables):
    """Run a program that emits; return what it prints."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PREAMBLE + textwrap.dedent(text)],
        env=environment(TOWERBUS_URL=url, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found, output, errors = finish(process, SECONDS)
    assert found == code, errors
    assert "Traceback" not in errors, errors
    return output


PREAMBLE = """
import multiprocessing, os, signal, sys, threading, time
from towerbus import Emitter
fork = multiprocessing.get_context("fork")

def emit(emitter, n):
    emitter.emit("jobs", "x", b'{"n":%d,"x":""}' % n)

def joined(process):
    process.join(30)
    assert process.exitcode == 0, process.exitcode
"""


def test_a_program_that_emits_over_http_has_no_pika_and_one_over_amqp_has_no_reactor():
    script("", "Emitter('http://127.0.0.1:9'); assert not any(name.startswith('pika') for name in sys.modules)")
    script("", "Emitter('amqp://127.0.0.1:9'); assert not any(name.startswith('twisted') for name in sys.modules)")


def test_a_fork_before_the_first_emit_and_after_it(url):
    script(
        url,
        """
        emitter = Emitter()
        before = fork.Process(target=emit, args=(emitter, 1))
        before.start(); joined(before)
        emit(emitter, 2)
        session = emitter._way._shared[os.getpid()].publisher._session
        after = [fork.Process(target=emit, args=(emitter, n)) for n in range(3, 8)]
        for each in after:
            each.start()
        emit(emitter, 8)
        for each in after:
            joined(each)
        emit(emitter, 9)
        assert emitter._way._shared[os.getpid()].publisher._session is session, "the children broke the parent's connection"
        """,
    )
    assert sorted(numbers(taken(url))) == list(range(1, 10))


def test_children_of_a_busy_parent_never_hang_nor_disturb_it(url):
    """Forks happen while other threads hold the lock, are in the middle of a message, or wait for one."""
    script(
        url,
        """
        emitter = Emitter(timeout=30)
        stop = threading.Event()
        errors, counts = [], [0] * 4

        def busy(number):
            while not stop.is_set():
                try:
                    emit(emitter, 1000 + number)
                except Exception as error:
                    errors.append(error)
                counts[number] += 1

        threads = [threading.Thread(target=busy, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for n in range(20):
            child = fork.Process(target=emit, args=(emitter, n))
            child.start(); joined(child)
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors, errors
        assert all(counts), counts
        assert list(emitter._way._shared) == [os.getpid()]
        print(sum(counts))
        """,
    )
    found = numbers(taken(url))
    assert sorted(n for n in found if n < 1000) == list(range(20))


def test_a_child_leaves_the_parents_socket_to_the_parent(url, broker):
    """A child that only lives on must not keep the connection open when its parent is gone."""
    output = script(
        url,
        """
        emitter = Emitter()
        emit(emitter, 1)
        child = os.fork()
        if not child:
            sys.stdout.close(), os.close(1), os.close(2)
            signal.alarm(60)
            signal.pause()
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        code=-signal.SIGKILL,
    )
    child = int(output)
    try:
        wait_for(lambda: connections(broker, url) == [], 4, "the end of the parent's connection: heartbeats take 10 s")
    finally:
        os.kill(child, signal.SIGKILL)
    assert numbers(taken(url)) == [1]


def test_the_forgotten_pid_check_would_be_noticed(url):
    """A child whose hook did not run (a fork in C) still never uses the parent's connection."""
    script(
        url,
        """
        from towerbus.amqp import lives
        emitter = Emitter(timeout=20)
        emit(emitter, 1)
        lives._lives.clear()  # so that the hook finds nothing
        child = fork.Process(target=emit, args=(emitter, 2))
        child.start(); joined(child)
        emit(emitter, 3)
        """,
    )
    assert sorted(numbers(taken(url))) == [1, 2, 3]


@pytest.mark.parametrize("preload", [True, False])
def test_gunicorn_with_several_workers(url, broker, tmp_path, preload):
    (tmp_path / "application.py").write_text(APPLICATION)
    log = tmp_path / "log"
    words = ["--workers", "3", "--threads", "2", "--bind", "127.0.0.1:0", *(["--preload"] if preload else [])]
    with log.open("w") as sink:
        process = subprocess.Popen(
            [str(BIN / "gunicorn"), *words, "application"],
            cwd=tmp_path,
            env=environment(TOWERBUS_URL=url),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        wait_for(lambda: log.read_text().count("Booting worker") == 3, SECONDS, "gunicorn")
        where = log.read_text().partition("Listening at: ")[2].split()[0]
        for n in range(60):
            assert urllib.request.urlopen(f"{where}/?{n}", timeout=30).read() == b"confirmed"
        assert 0 < len(connections(broker, url)) <= (4 if preload else 3), "one for each process"
        process.terminate()
        assert process.wait(SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    found = numbers(taken(url))
    assert [n for n in found if n >= 0] == list(range(60))
    assert found.count(-1) == (1 if preload else 3)
    assert "Traceback" not in log.read_text()


APPLICATION = """
from towerbus import Emitter

emitter = Emitter()
emitter.emit("jobs", "x", b'{"n":-1,"x":""}')  # at import: with --preload in the parent


def application(environ, start):
    emitter.emit("jobs", "x", b'{"n":%d,"x":""}' % int(environ["QUERY_STRING"]))
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"confirmed"]
"""


def test_a_program_that_just_ends_says_goodbye_to_the_broker(url, broker):
    before = len(broker.console)
    script(url, "emit(Emitter(), 1)")

    def ends():
        lines = broker.console[before:].splitlines()
        return [line for line in lines if "closing AMQP connection" in line and "towerbus emitter" in line]

    wait_for(ends, 20, "the broker's word")
    assert "[info]" in ends()[0], "not a warning of a client that unexpectedly closed the connection"
    assert numbers(taken(url)) == [1]


def test_a_program_ends_while_it_emits_and_what_was_confirmed_is_there(url):
    output = script(
        url,
        """
        emitter = Emitter()

        def busy():
            n = 0
            while True:
                emit(emitter, n)
                os.write(1, b"%d\\n" % n)
                n += 1

        threading.Thread(target=busy, daemon=True).start()
        time.sleep(0.5)
        """,
    )
    confirmed = [int(n) for n in output.split()]
    found = numbers(taken(url))
    assert confirmed
    assert found[: len(confirmed)] == confirmed
    assert len(found) <= len(confirmed) + 1


def test_a_program_ends_in_bounded_time_without_a_broker_and_with_a_frozen_one(own_broker):
    script(
        "amqp://127.0.0.1:9", "threading.Thread(target=emit, args=(Emitter(), 1), daemon=True).start(); time.sleep(0.3)"
    )
    url = own_broker.vhost()
    intakes.declare_now(url)
    script(
        url,
        f"""
        emitter = Emitter(timeout=600)
        emit(emitter, 1)
        os.kill({own_broker.pid}, signal.SIGSTOP)
        threading.Thread(target=emit, args=(emitter, 2), daemon=True).start()
        time.sleep(0.3)
        """,
    )
    own_broker.thaw()
    assert set(numbers(taken(url))) <= {1, 2}


def test_a_process_without_room_for_a_thread_is_told_so(url):
    script(
        url,
        """
        import resource
        from towerbus import NotConfirmed
        emitter = Emitter()
        threading.stack_size(1 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 29, -1))
        try:
            emit(emitter, 1)
        except NotConfirmed as error:
            assert error.sure and "thread" in str(error), error
        else:
            raise SystemExit("it must not have been confirmed")
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        threading.stack_size(0)
        emit(emitter, 2)
        """,
    )
    assert numbers(taken(url)) == [2]


# --- TLS


def tls(broker, url, **files):
    """The URL over TLS, with files."""
    query = "&".join(f"{key}={value}" for key, value in files.items())
    return f"{broker.url_of(url, tls=True)}?{query}"


def test_tls_with_a_good_certificate_and_with_one_of_ours(url, broker):
    trusted = tls(broker, url, cacertfile=broker.certificates.authority)
    with Emitter(trusted) as emitter:
        emitter.emit("jobs", "x", b'{"n":1,"x":""}')
        emitter.emit_many([{"group": "jobs", "type": "x", "payload": {"n": "x" * 900_000}}] * 3)
    key, chain = broker.certificates.issue("client@localhost")
    with Emitter(f"{trusted}&certfile={chain}&keyfile={key}") as emitter:
        emitter.emit("jobs", "x", b'{"n":2,"x":""}')
    assert [len(message.events) for message in taken(url)] == [1, 1, 1, 1, 1]


def test_a_foreign_authority_is_not_trusted_and_nothing_is_said_to_such_a_peer(url, broker, tmp_path):
    foreign = Certificates(tmp_path / "foreign")
    for files in ({"cacertfile": foreign.authority}, {}):
        with Emitter(tls(broker, url, **files), timeout=SECONDS) as emitter, pytest.raises(BusUnavailable) as caught:
            emitter.emit("jobs", "x", {"n": 1})
        assert "certificate" in str(caught.value)
    assert taken(url) == []


@pytest.mark.parametrize("wrong", ["host", "date"])
def test_a_certificate_for_another_host_or_an_old_one_is_refused_before_anything_is_said(tmp_path, wrong):
    ours = Certificates(tmp_path / "ours")
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    if wrong == "host":
        files = ours.issue("elsewhere.example")
    else:
        files = ours.issue("127.0.0.1", not_before=past, not_after=past + datetime.timedelta(days=1))
    with TlsServer(*files) as server:
        url = f"amqps://u:secret@127.0.0.1:{server.port}/v?cacertfile={ours.authority}"
        with Emitter(url, timeout=SECONDS) as emitter, pytest.raises(BusUnavailable, match="certificate") as caught:
            emitter.emit("jobs", "x", {"n": 1})
        assert "secret" not in str(caught.value)
    assert server.spoken == b""


def test_a_file_that_is_no_certificate_is_said_at_once(tmp_path):
    (tmp_path / "nonsense").write_text("nonsense")
    with pytest.raises(ConfigError, match="PEM"):
        Emitter(f"amqps://127.0.0.1/v?cacertfile={tmp_path}/nonsense")


# --- the command


def command(*words, code=0, stdin="", **variables):
    done = subprocess.run(
        [str(BIN / "towerbus"), "emit", *words], input=stdin, capture_output=True, text=True, timeout=SECONDS,
        env=environment(**variables),
    )  # fmt: skip
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def test_the_command_emits_to_a_broker(url):
    assert command("--url", url, "--id", "mine", "jobs", "x", '{"n":0,"x":""}').stdout == "mine\n"
    lines = "".join(f'{{"n":{n},"x":""}}\n' for n in range(1, 2000))
    done = command("jobs", "x", "-", stdin=lines, TOWERBUS_URL=url, TOWERBUS_TOKEN="for-watch")
    assert done.stderr == "1999 events emitted\n"
    assert numbers(taken(url)) == list(range(2000))


def test_the_command_says_that_a_token_is_not_needed(url):
    done = command("--url", url, "--token", "some-token", "jobs", "x", '{"n":0,"x":""}')
    assert "no token is needed" in done.stderr
    assert "some-token" not in done.stderr


def test_the_command_never_shows_a_password(url):
    wrong = url.replace("tb:tb@", "tb:secret@")
    for given in (
        wrong,
        wrong.replace("amqp:", "ampq:"),
        "amqp://tb:secret/x@h/v",
        "amqp://tb:secret?x@h/v",
        "ws://u:secret@h",
    ):
        done = command("--url", given, "--timeout", "20", "jobs", "x", '{"n":0}', code=1)
        assert done.stderr.startswith("Error: ")
        assert "secret" not in done.stderr
