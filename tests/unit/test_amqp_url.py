"""The bus's URL: what it says, what is wrong with it, and that no password is ever shown."""

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towerbus.amqp.url import Broker, parse
from towerbus.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://", Broker("localhost", 5672)),
        ("amqp://h", Broker("h", 5672)),
        ("amqp://h/", Broker("h", 5672)),
        ("amqp://h:7/%2F", Broker("h", 7, "/")),
        ("amqp://u:p@h/v", Broker("h", 5672, "v", "u", "p")),
        ("amqp://u@h/v%2Fw", Broker("h", 5672, "v/w", "u", "guest")),
        ("amqp://u:@h", Broker("h", 5672, "/", "u", "")),
        ("amqp://u%40x:p%3A%2F%23%3F%40@h", Broker("h", 5672, "/", "u@x", "p:/#?@")),
        ("AMQPS://h", Broker("h", 5671, tls=True)),
        ("amqps://[::1]:9/v", Broker("::1", 9, "v", tls=True)),
        ("amqp://h?prefix=a.b-c_1&heartbeat=600", Broker("h", 5672, prefix="a.b-c_1", heartbeat=600)),
    ],
)
def test_what_it_says(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "scheme"),
        ("h/v", "scheme"),
        ("http://h", "scheme 'http'"),
        ("memory:", "scheme 'memory'"),
        ("amqp://h:x", "port"),
        ("amqp://h:70000", "port"),
        ("amqp://[::1/v", "host"),
        ("amqp://h/v/w", "%2F"),
        ("amqp://h/v#x", "%23"),
        ("amqp://u:pa/ss@h/v", "%2F"),
        ("amqp://u:pa?ss@h/v", "%3F"),
        ("amqp://u:pa?prefix=ss@h/v", "%3F"),
        ("amqp://h?prefix=", "prefix="),
        ("amqp://h?prefix=a%20b", "prefix=a b"),
        ("amqp://h?prefix=.a", "prefix=.a"),
        (f"amqp://h?prefix={'a' * 101}", "100"),
        ("amqp://h?heartbeat=0", "heartbeat=0"),
        ("amqp://u:pass#word@h/", "# %23"),
        ("amqp://u:12#word@h/", "# in the password %23"),
        ("amqp://h?heartbeat=601", "600"),
        ("amqp://h?heartbeat=1.5", "heartbeat=1.5"),
        ("amqp://h?heartbeat=²", "heartbeat"),
        ("amqp://h?heartbeat=" + "9" * 5000, "heartbeat"),
        ("amqp://h?colour=red", "'colour'"),
        ("amqp://h?cacertfile=/x", "amqps"),
        ("amqps://h?cacertfile=/nowhere", "/nowhere"),
        ("amqps://h?keyfile=/dev/null", "certfile"),
        ("amqps://h?certfile=%00", "can't be read"),
    ],
)
def test_what_is_wrong_is_named(url, part):
    with pytest.raises(ConfigError) as caught:
        parse(url)
    assert part in str(caught.value)
    assert len(str(caught.value)) < 500


def test_files(tmp_path):
    path = tmp_path / "a@b.pem"
    path.write_text("x")
    broker = parse(f"amqps://h?cacertfile={path}&certfile={path}&keyfile={path}")
    assert (broker.cacertfile, broker.certfile, broker.keyfile) == (str(path),) * 3


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@given(user=texts, password=texts, vhost=texts, port=st.integers(1, 65535), tls=st.booleans())
def test_whatever_is_quoted_comes_back(user, password, vhost, port, tls):
    scheme = "amqps" if tls else "amqp"
    broker = parse(
        f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@h.example:{port}/{quote(vhost, safe='')}"
    )
    assert broker == Broker("h.example", port, vhost, user, password, tls=tls)


@given(st.text() | st.text().map("amqp://{}".format) | st.text().map("amqps://u:p@h/v?{}".format))
@example("amqp://h:\u0660")
@example("amqp://\uff0f")
@example("amqps://u:p@h/v?certfile=/etc")
def test_any_text_is_a_broker_or_the_one_error(text):
    try:
        assert isinstance(parse(text), Broker)
    except ConfigError as error:
        assert str(error)


@given(
    password=st.text(st.sampled_from("secret/#?@:%&=[]. "), min_size=1, max_size=12).map("hunter2{}hunter2".format),
    rest=st.sampled_from(["@h", "@h/v", "@h:7/v?prefix=p", "@h/v?colour=red", "@", "@[::1"]),
)
def test_a_password_is_never_shown_however_it_is_written(password, rest):
    try:
        broker = parse(f"amqp://user:{password}{rest}")
    except ConfigError as error:
        assert "hunter2" not in str(error)
    else:
        assert "hunter2" not in f"{broker} {broker!r} {[broker]}".replace(broker.vhost, "").replace(broker.host, "")


def test_its_text_says_where():
    assert str(parse("amqps://u:p@[::1]/v?prefix=x")) == "amqps://u@[::1]:5671/v (prefix x)"
