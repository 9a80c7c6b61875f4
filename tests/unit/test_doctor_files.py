"""Files that decide who is let in, and who else may read and write them."""

import pytest

from towerbus.doctor.files import look


@pytest.fixture
def place(tmp_path):
    """A configuration, tokens, a secret, a public key and a private one, with right permissions."""
    contents = {"config": "", "tokens": "", "secret": "x" * 40, "public": "-----BEGIN PUBLIC KEY-----", "private": "k"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o640)
    return tmp_path


def seen(place):
    auth = [
        f"tokens:{place}/tokens",
        f"jwt:{place}/secret",
        f"jwt:{place}/public",
        "jwt:https://x/keys",
        "jwt:/nowhere",
    ]
    return [each.text for each in look(f"{place}/config", auth, [f"ssl:1:privateKey={place}/private", "tcp:2"])]


def test_nothing_is_said_where_all_is_well(place):
    for name in ("config", "tokens", "public"):
        (place / name).chmod(0o644)
    assert seen(place) == []
    assert list(look("", [], [])) == []


@pytest.mark.parametrize("name", ["config", "tokens", "secret", "public", "private"])
def test_what_everybody_may_write_is_named(place, name):
    (place / name).chmod(0o642)
    (said,) = seen(place)
    assert said.startswith(f"{place}/{name} can be written by everybody")


@pytest.mark.parametrize("name", ["secret", "private"])
def test_a_secret_that_everybody_may_read_is_named(place, name):
    (place / name).chmod(0o644)
    assert seen(place) == [f"{place}/{name} can be read by everybody on this machine: it is a secret"]
