"""What a client shows of itself, and what of it a log may hold."""

from urllib.parse import parse_qs, quote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towerbus.auth.credentials import cookies, credential, without_token
from towerbus.auth.interface import Credential, Kind

EVERYWHERE = {
    "params": {"token": ["url"]},
    "headers": {"authorization": "Bearer header", "cookie": "token=cookie; awx_sessionid=session; csrftoken=c"},
    "protocols": ["tower", "bearer.protocol"],
}


def shown(*, params=None, headers=None, protocols=(), **more):
    return credential(params=params or {}, headers=headers or {}, protocols=protocols, **more)


def without(*places):
    """What is shown everywhere but in these places."""
    given = {"params": EVERYWHERE["params"], "headers": dict(EVERYWHERE["headers"]), "protocols": ["tower"]}
    if "protocol" not in places:
        given["protocols"] = EVERYWHERE["protocols"]
    if "url" in places:
        given["params"] = {"other": ["x"]}
    if "header" in places:
        del given["headers"]["authorization"]
    if "cookie" in places:
        given["headers"]["cookie"] = "awx_sessionid=session; csrftoken=c"
    return given


def test_the_first_place_decides():
    order = ["url", "header", "protocol", "cookie"]
    for place, name in enumerate(order):
        found = credential(**without(*order[:place]))
        assert (found.kind, found.secret) == (Kind.TOKEN, name)
    found = credential(**without(*order))
    assert (found.kind, found.secret, found.csrf) == (Kind.SESSION, "session", "c")


@pytest.mark.parametrize(
    "empty",
    [
        {"params": {"token": [""]}},
        {"headers": {"authorization": "Bearer ", "cookie": "token=cookie"}},
        {"headers": {"authorization": "Bearer", "cookie": "token=cookie"}},
        {"headers": {"cookie": "token=cookie"}, "protocols": ["tower", "bearer.", "bearer.good"]},
        {"headers": {"cookie": "token=; awx_sessionid=session"}},
        {"headers": {"cookie": 'awx_sessionid=""; sessionid=s'}},
    ],
)
def test_an_empty_one_is_not_rescued_by_a_later_good_one(empty):
    given = {"headers": EVERYWHERE["headers"]} | empty
    assert shown(**given) is None


def test_nothing_shown_is_no_credential():
    assert shown() is None
    assert shown(headers={"cookie": "csrftoken=x; other=y"}, protocols=["tower"]) is None


def test_another_scheme_of_authorization_is_not_ours():
    found = shown(headers={"authorization": "Basic eA==", "cookie": "token=t"})
    assert (found.kind, found.secret) == (Kind.TOKEN, "t")


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc ", " Bearer abc"])
def test_the_scheme_is_read_whatever_its_case(header):
    assert shown(headers={"authorization": header}).secret == "abc"


@pytest.mark.parametrize(
    ("header", "session", "csrf"),
    [
        ('awx_sessionid="x";csrftoken=y', "x", "y"),
        ('awx_sessionid="x";', "x", None),
        ("sessionid=x; csrftoken=y;", "x", "y"),
        ('prefs={"a": [1,2]}; awx_sessionid=x; csrftoken="y"', "x", "y"),
        ("nonsense; =; ; awx_sessionid=x", "x", None),
        ("  awx_sessionid = x  ", "x", None),
        ("sessionid=old; awx_sessionid=x", "x", None),
        ("awx_sessionid=x; csrftoken=", "x", None),
        ("awx_sessionid=x=y==", "x=y==", None),
        ('awx_sessionid="', '"', None),
        ("awx_sessionid=x; awx_sessionid=later", "x", None),
    ],
)
def test_cookies_as_old_clients_write_them(header, session, csrf):
    found = shown(headers={"cookie": header}, address="192.0.2.7")
    assert found == Credential(Kind.SESSION, session, cookie=header, csrf=csrf, address="192.0.2.7")


def test_the_token_cookie_of_awxkit():
    assert shown(headers={"cookie": 'token="abc";'}) == Credential(Kind.TOKEN, "abc")


def test_the_names_of_session_cookies_are_the_users_to_choose():
    header = {"cookie": "awx_sessionid=a; ours=b"}
    assert shown(headers=header, session_cookies=("ours",)).secret == "b"
    assert shown(headers=header, session_cookies=("none",)) is None


def test_neither_repr_nor_text_of_a_credential_hold_the_secret():
    for found in (shown(params={"token": ["hunter2"]}), shown(headers={"cookie": "sessionid=hunter2"})):
        assert "hunter2" not in repr(found) + str(found) + f"{found}"


texts = st.text(max_size=60)
cookie_texts = st.lists(
    st.one_of(st.sampled_from(["token", "awx_sessionid", "csrftoken", "=", ";", '"', '""', " ", "\0", "é"]), texts)
).map("".join)


@given(
    params=st.dictionaries(st.sampled_from(["token", "x"]), st.lists(texts, max_size=3)),
    headers=st.fixed_dictionaries({}, optional={"authorization": texts.map("Bearer".__add__), "cookie": cookie_texts}),
    protocols=st.lists(texts.map("bearer.".__add__) | texts, max_size=3),
)
def test_whatever_is_shown_is_a_credential_or_none(params, headers, protocols):
    found = credential(params=params, headers=headers, protocols=protocols)
    assert found is None or (isinstance(found, Credential) and found.secret)
    if params.get("token"):
        assert (found.secret if found else "") == params["token"][0]


@given(cookie_texts, cookie_texts)
def test_a_malformed_cookie_does_not_hide_the_others(before, after):
    header = f"{before.replace('ours', '')};ours=here;{after}"
    assert cookies(header)["ours"] == "here"


@pytest.mark.parametrize(
    ("uri", "blanked"),
    [
        ("/websocket/", "/websocket/"),
        ("/websocket/?token=secret", "/websocket/?token=..."),
        ("/websocket/?a=1&token=secret&b=2", "/websocket/?a=1&token=...&b=2"),
        ("/?token=secret&token=another", "/?token=...&token=..."),
        ("/?%74oken=secret", "/?%74oken=..."),
        ("/?token=a;b?c=d", "/?token=..."),
        ("wss://example.org/websocket/?token=secret", "wss://example.org/websocket/?token=..."),
        ("/?tokens=3&a", "/?tokens=3&a"),
        ("", ""),
    ],
)
def test_a_log_gets_no_token(uri, blanked):
    assert without_token(uri) == blanked


@given(st.text(alphabet="abc&?;=#%/+ ", max_size=20), st.text(alphabet="&?;=#%40aé ", min_size=1), st.text(max_size=9))
@example("", "#", "")
def test_what_a_server_reads_as_the_token_is_blanked(before, token, after):
    uri = f"/?{before}&token={quote('SECRET' + token, safe='?;=/')}&{quote(after)}"
    assert "SECRET" not in without_token(uri)
    assert "SECRET" not in str(parse_qs(urlsplit(without_token(uri)).query).get("token"))
