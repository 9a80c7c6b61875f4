"""The commands, as processes of their own: exit codes, what is printed where, and clear errors."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from support.running import environment, running_towerbus, wait_for
from websockets.sync.client import connect

from towerbus.commands import urls

TOWERBUS = str(Path(sys.executable).with_name("towerbus"))


def run(*words, code=0, stdin="", **variables):
    done = subprocess.run(
        [TOWERBUS, *words], input=stdin, capture_output=True, text=True, timeout=60, env=environment(**variables)
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    with running_towerbus(tmp_path_factory.mktemp("bus")) as running:
        yield running


@pytest.fixture
def client(bus):
    with connect(bus.ws_url) as made:
        made.recv(5)
        made.send(json.dumps({"groups": {"jobs": ["cli"]}}))
        made.recv(5)
        yield made


def start_watch(bus, *words):
    command = [TOWERBUS, "watch", "--token", bus.token, "--url", bus.ws_url.split("?")[0], *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert process.stderr.readline().startswith("watching ")
    return process


def test_an_emit_prints_the_id(bus, client):
    done = run("emit", "--url", bus.http_url, "--token", bus.token, "--id", "mine", "jobs", "cli", '{"n":  1}')
    assert done.stdout == "mine\n"
    assert client.recv(5) == '{"n":  1}'


def test_lines_from_a_pipe_keep_their_order(bus, client):
    lines = "".join(f'{{"n":{n}}}\n\n' for n in range(450))
    done = run("emit", "jobs", "cli", "-", stdin=lines, TOWERBUS_URL=bus.http_url, TOWERBUS_TOKEN=bus.token)
    assert done.stdout == ""
    assert done.stderr == "450 events emitted\n"
    assert [json.loads(client.recv(5))["n"] for _ in range(450)] == list(range(450))


def test_a_bad_line_is_named(bus):
    done = run(
        "emit", "--url", bus.http_url, "--token", bus.token, "jobs", "cli", "-", stdin='{"n":1}\n{"n":\n', code=1
    )
    assert "line 2" in done.stderr
    assert "0 events are confirmed; to go on" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["jobs", "cli", "{"], 1, "JSON"),
        (["jobs", "cli", "{}"], 1, "empty object"),
        (["a b", "cli", '{"n":1}'], 1, "group 'a b'"),
        (["_towerbus", "cli", '{"n":1}'], 1, "internal"),
        (["jobs", "cli"], 2, "JSON|-"),
        (["--url", "ws://127.0.0.1:1", "jobs", "cli", '{"n":1}'], 1, "HTTP listener"),
        (["--url", "nonsense", "jobs", "cli", '{"n":1}'], 1, "not a URL"),
        (["--url", "http://127.0.0.1:9", "--timeout", "0.2", "--id", "x1", "jobs", "cli", '{"n":1}'], 1, "--id x1"),
    ],
)
def test_emits_that_fail_say_why(words, code, part):
    assert part in run("emit", *words, code=code).stderr


def test_a_wrong_token_is_said(bus):
    assert "not known" in run("emit", "--url", bus.http_url, "--token", "x", "jobs", "cli", '{"n":1}', code=1).stderr
    done = run("watch", "--url", bus.ws_url.split("?")[0], "--token", "x", "jobs", code=1)
    assert "not authenticated" in done.stderr


def test_watch_prints_events_as_they_come_and_stops_after_the_count(bus):
    watching = start_watch(bus, "--count", "2", "jobs:watched", "job_events:42")
    for n in range(3):
        run("emit", "--url", bus.http_url, "--token", bus.token, "jobs", "watched", f'{{"n":  {n}}}')
    out, _ = watching.communicate(timeout=20)
    assert out == '{"n":  0}\n{"n":  1}\n'
    assert watching.returncode == 0


def test_a_watch_goes_on_behind_a_position(bus):
    watching = start_watch(bus, "--positions", "--count", "1", "jobs:*")
    for n in range(3):
        run("emit", "--url", bus.http_url, "--token", bus.token, "--id", f"e{n}", "jobs", "placed", f'{{"n":  {n}}}')
    out, _ = watching.communicate(timeout=20)
    first = json.loads(out)
    assert (first["group"], first["type"], first["id"], first["data"]) == ("jobs", "placed", "e0", {"n": 0})
    words = ["watch", "--url", bus.ws_url, "--since", first["position"], "--count", "2", "jobs:placed"]
    done = run(*words)
    assert done.stdout == '{"n":  1}\n{"n":  2}\n'
    assert done.stderr == "watching jobs-placed, from where it was\n"


def test_a_position_that_is_lost_is_told_and_the_watch_goes_on(bus):
    words = ["watch", "--url", bus.ws_url, "--since", "abc-1-5-1", "--count", "1", "jobs:lost"]
    watching = subprocess.Popen(
        [TOWERBUS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert "events were lost between abc-1-5-1 and " in watching.stderr.readline()
    assert watching.stderr.readline() == "watching jobs-lost\n"
    run("emit", "--url", bus.http_url, "--token", bus.token, "jobs", "lost", '{"n":1}')
    out, _ = watching.communicate(timeout=20)
    assert out == '{"n":1}\n'


def test_ctrl_c_ends_watch_quietly(bus):
    watching = start_watch(bus, "jobs")
    watching.send_signal(signal.SIGINT)
    out, err = watching.communicate(timeout=20)
    assert (watching.returncode, out, err) == (130, "", "")


def test_watch_comes_back_when_the_server_does(tmp_path):
    with running_towerbus(tmp_path) as first:
        watching = start_watch(first, "jobs")
    assert "connection lost: restarting" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=20)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["a b"], "group 'a b'"),
        (["jobs:"], "type ''"),
        (["--since", "17", "jobs"], "is not a position"),
        (["jobs:a b"], "type 'a b'"),
        (["--url", "http://h", "jobs"], "not the URL of a WebSocket"),
    ],
)
def test_watches_that_fail_say_why(words, part):
    assert part in run("watch", *words, code=1).stderr


def test_what_can_not_be_connected_to_is_named_without_its_token():
    words = [TOWERBUS, "watch", "--url", "ws://127.0.0.1:1/websocket/?token=secret", "jobs"]
    watching = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment())
    line = watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, rest = watching.communicate(timeout=20)
    assert line.startswith("can't connect to 'ws://127.0.0.1:1/websocket/?...': Connection was refused")
    assert ".;" not in line
    assert "secret" not in line + rest


def test_a_grant_that_is_none_is_told_in_words(tmp_path):
    key = tmp_path / "key"
    key.write_text("k" * 40)
    done = run("token", "--key", str(key), "--user", "7", "--emit", "jobs", code=1)
    assert done.stderr.startswith("Error: --emit: got 'jobs', wanted GROUP/TYPE such as jobs/status_changed, with *")


def test_a_reader_that_has_had_enough_is_no_error(bus):
    watching = start_watch(bus, "jobs:piped")
    watching.stdout.close()

    def gone():
        run("emit", "--url", bus.http_url, "--token", bus.token, "jobs", "piped", '{"n":1}')
        return watching.poll() is not None

    wait_for(gone, 20, "the end")
    assert "Traceback" not in watching.stderr.read()
    watching.stderr.close()


def test_a_token_and_nothing_else(tmp_path):
    key = tmp_path / "key"
    key.write_text("k" * 40)
    words = ["--user", "7", "--name", "ada", "--subscribe", "job_events/42", "--emit", "jobs/*", "--expires", "60"]
    out = run("token", "--key", str(key), *words).stdout
    claims = jwt.decode(out.removesuffix("\n"), "k" * 40, algorithms=["HS256"])
    assert (claims["sub"], claims["name"]) == ("7", "ada")
    assert claims["towerbus"] == {"subscribe": ["job_events/42"], "emit": ["jobs/*"]}
    assert "exp" in claims
    assert "/nowhere" in run("token", "--key", "/nowhere", "--user", "7", code=1).stderr
    key.write_text("short")
    assert "32" in run("token", "--key", str(key), "--user", "7", code=1).stderr


@pytest.mark.parametrize(
    "words",
    [["--help"], ["emit", "--help"], ["bench", "--help"], ["watch", "--help"], ["token", "--help"], ["--version"]],
)
def test_help_is_there(words):
    assert len(run(*words).stdout) > 10


def test_a_terminal_gets_a_progress_bar(bus, tmp_path):
    """Standard error is a terminal of our own making."""
    import pty

    lines = tmp_path / "lines"
    lines.write_text('{"n":1}\n' * 300)
    ours, theirs = pty.openpty()
    with lines.open() as stdin:
        words = [TOWERBUS, "emit", "--url", bus.http_url, "--token", bus.token, "jobs", "bar", "-"]
        subprocess.run(words, stdin=stdin, stderr=theirs, check=True, timeout=30, env=environment())
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "emitting" in shown
    assert "100%" in shown


def test_a_line_that_comes_alone_does_not_wait_for_the_next(bus, client):
    words = [TOWERBUS, "emit", "--url", bus.http_url, "--token", bus.token, "jobs", "cli", "-"]
    emitting = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    for n in range(3):
        emitting.stdin.write(f'{{"n":{n}}}\n')
        emitting.stdin.flush()
        assert client.recv(20) == f'{{"n":{n}}}'
    _, err = emitting.communicate(timeout=20)
    assert (emitting.returncode, err) == (0, "3 events emitted\n")


def test_long_lines_never_make_a_request_that_is_too_large(bus):
    lines = [json.dumps({"n": n, "text": "x" * 900_000}) for n in range(20)]
    done = run("emit", "--url", bus.http_url, "--token", bus.token, "jobs", "cli", "-", stdin="\n".join(lines))
    assert done.stderr == "20 events emitted\n"


def test_a_line_that_only_the_server_finds_wrong_is_named_by_its_number(bus):
    lines = '{"n":1}\n\n' + json.dumps({"text": "x" * 2_000_000}) + "\n"
    done = run("emit", "--url", bus.http_url, "--token", bus.token, "jobs", "cli", "-", stdin=lines, code=1)
    assert "line 3: payload of 2000012 bytes is over the limit" in done.stderr
    assert "1 events are confirmed, up to line 1; to go on" in done.stderr


def test_lines_in_doubt_are_named():
    words = ["emit", "--url", "http://127.0.0.1:9", "--timeout", "0.2", "jobs", "cli", "-"]
    done = run(*words, stdin='{"n":1}\n{"n":2}\n', code=1)
    assert "lines 1 to 2: not confirmed within 0.2 s" in done.stderr
    assert "0 events are confirmed; to go on" in done.stderr
    assert "may or may not" not in done.stderr, "they were never sent"


def test_lines_that_are_emitted_again_are_not_repeated(bus, client):
    url = ["--url", bus.http_url, "--token", bus.token]
    lines = ['{"n":1}', "", '{"n":2}']
    done = run("emit", *url, "jobs", "cli", "-", stdin="\n".join([*lines, "{}", ""]), code=1)
    run_id = re.search(r"with --id (\S+) --from 1$", done.stderr.strip())[1]
    assert "0 events are confirmed; to go on" in done.stderr, "one chunk is one request, and none of it was taken"
    assert run("emit", *url, "--id", run_id, "jobs", "cli", "-", stdin="\n".join(lines)).stderr == "2 events emitted\n"
    assert [client.recv(5), client.recv(5)] == ['{"n":1}', '{"n":2}']
    # Again, as somebody does who is in doubt: only what is new comes.
    again = "\n".join([*lines, '{"n":5}'])
    assert run("emit", *url, "--id", run_id, "jobs", "cli", "-", stdin=again).stderr == "3 events emitted\n"
    assert client.recv(5) == '{"n":5}'
    more = "\n".join([*lines, "junk", '{"n":6}'])
    words = ["--id", run_id, "--from", "5", "jobs", "cli", "-"]
    assert run("emit", *url, *words, stdin=more).stderr == "1 events emitted\n"
    assert client.recv(5) == '{"n":6}'
    whole = '{"group":"jobs","type":"cli","payload":{"n":%d}%s}\n'
    run("emit", *url, "--id", run_id, "-", stdin=whole % (1, "") + whole % (7, ',"id":"own"'))
    assert client.recv(5) == '{"n":7}', "line 1 is known by its number, and the other has an id of its own"


def test_lines_in_doubt_are_said_to_be():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = ["--url", f"http://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.3", "--id", "r"]
        done = run("emit", *words, "--from", "2", "jobs", "cli", "-", stdin='{"n":1}\n{"n":2}\n{"n":3}\n', code=1)
    assert "0 events are confirmed; lines 2 to 3 may or may not have been taken" in done.stderr
    assert "with --id r --from 2" in done.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--from", "2", "jobs", "cli", '{"n":1}'], "it goes with - only"),
        (["--id", "x" * 101, "jobs", "cli", "-"], "--id: wanted are 100 characters"),
        (["--id", "a b", "jobs", "cli", "-"], "visible ASCII"),
    ],
)
def test_ids_and_numbers_of_lines_that_can_not_be(words, part):
    assert part in run("emit", *words, code=1).stderr


def test_lines_may_be_whole_events(bus, client):
    lines = '{"group":"jobs","type":"cli","payload":{"n":  1}}\n{"group":"jobs-cli","payload":{"n":2},"id":"whole"}\n'
    done = run("emit", "--url", bus.http_url, "--token", bus.token, "-", stdin=lines)
    assert done.stderr == "2 events emitted\n"
    assert [client.recv(5), client.recv(5)] == ['{"n":  1}', '{"n":2}']
    done = run("emit", "--url", bus.http_url, "--token", bus.token, "-", stdin='{"group":"jobs"}', code=1)
    assert "line 1: not an event" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["emit", "--url", "http://127.0.0.1:99999", "jobs", "cli", '{"n":1}'],
        ["emit", "--url", "http://[", "jobs", "cli", '{"n":1}'],
        ["emit", "--url", "http://127.0.0.1:1/ä", "jobs", "cli", '{"n":1}'],
        ["emit", "--token", "a\nb", "jobs", "cli", '{"n":1}'],
        ["emit", "--token", "ä", "jobs", "cli", '{"n":1}'],
        ["emit", "jobs", "cli", b'{"n":"\xff"}'],
        ["emit", b"jobs\xff", "cli", '{"n":1}'],
        ["watch", "--url", "ws://127.0.0.1:99999/", "jobs"],
        ["watch", "--url", "ws://[", "jobs"],
        ["watch", "--url", "ws://127.0.0.1:1/ä", "jobs"],
        ["watch", "--token", "a\nb", "jobs"],
        ["watch", "--token", "ä", "jobs"],
        ["watch", b"jobs\xff:cli"],
    ],
)
def test_odd_words_are_one_line_of_error(words):
    done = run(*words, code=1)
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_a_path_without_a_websocket_is_said_and_not_tried_for_ever(bus):
    url = bus.ws_url.split("?")[0].replace("/websocket/", "/elsewhere/")
    assert "HTTP 404" in run("watch", "--url", url, "--token", bus.token, "jobs", code=1).stderr


def test_what_is_refused_is_told_on_standard_error(bus, tmp_path):
    key = tmp_path / "key"
    key.write_text("k" * 40)
    token = run("token", "--key", str(key), "--user", "7").stdout.strip()
    with running_towerbus(tmp_path, "--auth", f"jwt:{key}") as guarded:
        words = ["watch", "--url", guarded.ws_url.split("?")[0], "--token", token, "job_events:42"]
        watching = subprocess.Popen([TOWERBUS, *words], stderr=subprocess.PIPE, text=True, env=environment())
        assert "access denied" in watching.stderr.readline()
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=20)


def test_a_full_disk_is_one_line_of_error(bus):
    words = [TOWERBUS, "watch", "--token", bus.token, "--url", bus.ws_url.split("?")[0], "jobs:full"]
    with Path("/dev/full").open("w") as full:
        watching = subprocess.Popen(words, stdout=full, stderr=subprocess.PIPE, text=True, env=environment())
    assert watching.stderr.readline().startswith("watching ")
    run("emit", "--url", bus.http_url, "--token", bus.token, "jobs", "full", '{"n":1}')
    _, err = watching.communicate(timeout=20)
    assert (watching.returncode, err) == (1, "Error: can't print: [Errno 28] No space left on device\n")


def test_ctrl_c_ends_emit_and_says_how_far_it_is(bus, client):
    words = [TOWERBUS, "emit", "--url", bus.http_url, "--token", bus.token, "jobs", "cli", "-"]
    emitting = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    for n in (1, 2):
        emitting.stdin.write(f'{{"n":{n}}}\n')
        emitting.stdin.flush()
        client.recv(20)  # it runs; that line 1 is confirmed it knows before it emits line 2
    emitting.send_signal(signal.SIGINT)
    _, err = emitting.communicate(timeout=20)
    assert emitting.returncode == 130
    assert re.match(r"Interrupted: [12] events are confirmed, up to line [12]; .*to go on and repeat none", err.strip())
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("given", "http", "websocket"),
    [
        ("ws://h:8051/websocket/?token=t", "http://h:8052/?token=t", "ws://h:8051/websocket/?token=t"),
        ("wss://[::1]:8051/websocket/", "https://[::1]:8052/", "wss://[::1]:8051/websocket/"),
        ("http://h:8052", "http://h:8052", "ws://h:8051/websocket/"),
        ("https://h:8052/?token=t", "https://h:8052/?token=t", "wss://h:8051/websocket/?token=t"),
        ("ws://h:1/x", "ws://h:1/x", "ws://h:1/x"),
    ],
)
def test_one_url_serves_both_commands_where_the_ports_are_the_default_ones(given, http, websocket):
    assert urls.http_url(given) == http
    assert urls.websocket_url(given) == websocket
