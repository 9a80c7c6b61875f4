"""Finds what a client shows of itself in its handshake, and keeps it out of logs. Pure.

The places are looked at in order and the first that holds something decides, even when that is empty or no good: a
later place never rescues it. The order is the URL's `token`, `Authorization: Bearer`, the subprotocol `bearer.<token>`,
the cookie `token`, and the application's session cookie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_plus

from towerbus.auth.interface import Credential, Kind

PARAMETER = "token"
"""The URL's parameter, and the cookie, that hold a token."""
BEARER = "bearer"
"""The scheme of the `Authorization` header (RFC 6750 section 2.1)."""
SUBPROTOCOL = "bearer."
"""Before the token in a subprotocol: browsers can set no header on a WebSocket, but they can offer protocols."""
CSRF = "csrftoken"
"""The cookie that each message of a session has to echo."""
SESSION_COOKIES = ("awx_sessionid", "sessionid")
"""Tower's session cookies, of its newer and its older releases."""
BLANK = "..."
"""What stands for a token in a log."""


def credential(
    *,
    params: Mapping[str, Sequence[str]],
    headers: Mapping[str, str],
    protocols: Sequence[str],
    address: str = "",
    session_cookies: Sequence[str] = SESSION_COOKIES,
) -> Credential | None:
    """Find the credential that a client shows.

    Args:
        params: The parameters of the URL, decoded.
        headers: The headers of the request, keys in lower case.
        protocols: The subprotocols that the client offers.
        address: The client's address.
        session_cookies: Names of the application's session cookies, in order.

    Returns:
        The credential, or None where nothing is shown, or where the place that decides is empty.
    """
    header = headers.get("cookie", "")
    found = cookies(header)
    token = _token(params, headers, protocols, found)
    if token is not None:
        return Credential(Kind.TOKEN, token, address=address) if token else None
    session = next((found[name] for name in session_cookies if name in found), "")
    if not session:
        return None
    return Credential(Kind.SESSION, session, cookie=header, csrf=found.get(CSRF) or None, address=address)


def cookies(header: str) -> dict[str, str]:
    """Read a `Cookie` header as leniently as old clients write it.

    `awx_sessionid="x";csrftoken=y;` is fine: blanks and quotes around a value are dropped, a part without `=` is passed
    over, and of two cookies of one name the first counts, which is the one with the longer path (RFC 6265 section 5.4).
    `http.cookies.SimpleCookie` knows no cookie at all where one of them is malformed.

    Args:
        header: The header's value; empty where there is none.
    """
    found: dict[str, str] = {}
    for part in header.split(";"):
        name, equals, value = part.partition("=")
        if equals and name.strip():
            found.setdefault(name.strip(), _unquoted(value.strip()))
    return found


def without_token(uri: str) -> str:
    """Blank the value of the `token` parameter, so that the URI may stand in a log.

    Args:
        uri: A URI or its path and query, as it came.
    """
    path, mark, query = uri.partition("?")
    return path + mark + "&".join(_blanked(parameter) for parameter in query.split("&"))


def _token(
    params: Mapping[str, Sequence[str]],
    headers: Mapping[str, str],
    protocols: Sequence[str],
    found: Mapping[str, str],
) -> str | None:
    """The first token shown, which may be empty; None where none is."""
    given = params.get(PARAMETER)
    if given:
        return given[0]
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == BEARER:
        return rest.strip()
    offered = next((name for name in protocols if name.startswith(SUBPROTOCOL)), None)
    if offered is not None:
        return offered[len(SUBPROTOCOL) :]
    return found.get(PARAMETER)


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value


def _blanked(parameter: str) -> str:
    name, equals, _ = parameter.partition("=")
    return f"{name}={BLANK}" if equals and unquote_plus(name).strip().lower() == PARAMETER else parameter
