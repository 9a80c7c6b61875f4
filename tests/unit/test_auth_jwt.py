"""Tokens that carry their identity."""

import base64
import json
import time

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from towerbus.access import Grants, Identity
from towerbus.auth import jwt as module
from towerbus.auth.interface import Credential, IAuthenticator, Kind, Refused
from towerbus.auth.jwks import FixedKeys
from towerbus.auth.jwt import JwtAuthenticator, jwt, mint
from towerbus.auth.keys import Key
from towerbus.errors import ConfigError

SECRET = b"0123456789abcdef" * 4
RSA = rsa.generate_private_key(65537, 2048)
KEYS = [RSA, ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()]
HMAC = FixedKeys((Key(SECRET, ("HS256", "HS384", "HS512")),))


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def token(claims, key=SECRET, algorithm="HS256", **headers):
    return pyjwt.encode(claims, key, algorithm=algorithm, headers=headers)


def raw(payload, header=b'{"alg":"HS256"}'):
    """A token with a good signature, whatever it holds."""
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload)]
    signature = pyjwt.algorithms.HMACAlgorithm(pyjwt.algorithms.HMACAlgorithm.SHA256).sign(b".".join(parts), SECRET)
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def shown(text):
    return Credential(Kind.TOKEN, text)


def judged(text, now=1000.0, keys=HMAC):
    return JwtAuthenticator(keys, lambda: now).authenticate(shown(text))


@pytest.fixture
def file(tmp_path):
    def file(content, name="key"):
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return file


def test_the_claims_are_the_identity():
    claims = {
        "sub": "7",
        "name": "ada",
        "exp": 2000,
        "nbf": 900.5,
        "iat": 5000,
        "aud": ["x", "towerbus"],
        "towerbus": {"subscribe": ["job_events/42", "inventories/*"], "emit": ["jobs/*"], "more": 1},
    }
    assert judged(token(claims)) == Identity(7, "ada", Grants(("job_events/42", "inventories/*"), ("jobs/*",)), 2000.0)


@pytest.mark.parametrize(
    ("sub", "user"),
    [
        ("7", 7),
        ("0", 0),
        ("ada", "ada"),
        ("007", "007"),
        ("-7", "-7"),
        ("\u0667", "\u0667"),
        ("9" * 100, "9" * 100),
        ("7 ", "7 "),
    ],
)
def test_digits_become_an_integer(sub, user):
    assert judged(token({"sub": sub})).user == user


def test_a_number_as_sub_is_taken_too():
    assert judged(raw(b'{"sub": 7}')) == Identity(7)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"{}", "sub"),
        (b'{"sub": ""}', "sub"),
        (b'{"sub": true}', "sub"),
        (b'{"sub": null}', "sub"),
        (b'{"sub": "7", "exp": "soon"}', "exp"),
        (b'{"sub": "7", "exp": 1e400}', "exp"),
        (b'{"sub": "7", "exp": 1798761600000}', "exp"),
        (b'{"sub": "7", "name": 3}', "name"),
        (b'{"sub": "7", "towerbus": []}', "towerbus"),
        (b'{"sub": "7", "towerbus": {"subscribe": "jobs/*"}}', "subscribe"),
        (b'{"sub": "7", "towerbus": {"emit": ["jobs"]}}', r"emit\[0\]"),
        (b'{"sub": "7", "towerbus": {"emit": ["jobs/*/x"]}}', r"emit\[0\]"),
        (b'{"sub": "7", "aud": "another"}', "aud does not name towerbus"),
        (b'{"sub": "7", "aud": []}', "aud does not name towerbus"),
        (b'{"sub": "7", "exp": 1000}', "expired 0 s ago"),
        (b'{"sub": "7", "exp": 990}', "expired 10 s ago"),
        (b'{"sub": "7", "nbf": 1010}', r"good only in 10 s \(nbf\)"),
        (b"[]", "claims"),
        (b"nonsense", "claims"),
        (b"\xff", "claims"),
        (b"[" * 20_000, "claims"),
    ],
)
def test_a_good_signature_on_bad_claims_is_refused_and_it_says_why(payload, why):
    text = raw(payload)
    with pytest.raises(Refused, match=why) as caught:
        judged(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c.d",
        "..",
        "a.b.c",
        "é.b.c",
        "\ud800.b.c",
        "W10.e30.c",
        "x" * 200_000 + "..",
        base64.urlsafe_b64encode(b"[" * 30_000).decode() + ".e30.c",
        token({"sub": "7"}, b"another secret of some length more"),
        token({"sub": "7"})[:-2],
        token({"sub": "7"}, None, "none"),
        token({"sub": "7"}, RSA, "RS256"),
        raw(b'{"sub": "7"}', b'{"alg":"HS256","crit":["x"],"x":1}'),
        raw(b'{"sub": "7"}', b'{"alg":"none"}'),
        raw(b'{"sub": "7"}', b'{"alg":[]}'),
        raw(b'{"sub": "7"}', b'{"alg":"HS256","kid":7}'),
        raw(b'{"sub": "7"}', b"{}"),
    ],
)
def test_what_our_keys_have_not_signed_is_for_the_next_plugin(text):
    assert judged(text) is None


def test_only_tokens_are_judged():
    assert JwtAuthenticator(HMAC).authenticate(Credential(Kind.SESSION, token({"sub": "7"}))) is None


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_every_length_of_hmac(file, algorithm):
    plugin = jwt(file(SECRET[:32] + b"\n"), None)
    assert verifyObject(IAuthenticator, plugin)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyJWT's, at signing; our own verifying must not warn
        text = token({"sub": "7"}, SECRET[:32], algorithm)
    assert plugin.authenticate(shown(text)) == Identity(7)


@pytest.mark.parametrize(("key", "algorithm"), [*zip(KEYS, ["PS512", "ES384", "EdDSA"], strict=True)])
def test_public_keys(file, key, algorithm):
    plugin = jwt(file(public_pem(key)), None)
    assert plugin.authenticate(shown(token({"sub": "7"}, key, algorithm))) == Identity(7)
    for other in ("HS256", "HS512"):
        header = json.dumps({"alg": other}).encode()
        parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, b'{"sub":"7"}')]
        hmac = pyjwt.algorithms.HMACAlgorithm(getattr(pyjwt.algorithms.HMACAlgorithm, "SHA" + other[2:]))
        forged = b".".join(
            [*parts, base64.urlsafe_b64encode(hmac.sign(b".".join(parts), public_pem(key))).rstrip(b"=")]
        )
        assert plugin.authenticate(shown(forged.decode())) is None, "a public key was taken for a secret"


def test_a_token_that_names_its_key_is_verified_by_that_key_only():
    keys = FixedKeys((Key(SECRET, ("HS256",), "a"), Key(b"b" * 32, ("HS256",), "b")))
    assert judged(token({"sub": "7"}, kid="a"), keys=keys) == Identity(7)
    assert judged(token({"sub": "7"}), keys=keys) == Identity(7)
    assert judged(token({"sub": "7"}, kid="b"), keys=keys) is None
    assert judged(token({"sub": "7"}, kid="c"), keys=keys) is None
    assert judged(token({"sub": "7"}, kid="c")) == Identity(7), "a key without a name verifies any token"


def test_a_token_seen_before_is_not_verified_again_but_its_end_is_looked_at(monkeypatch):
    now = [1000.0]
    plugin = JwtAuthenticator(HMAC, lambda: now[0])
    ends, lasts = shown(token({"sub": "7", "exp": 2000})), shown(token({"sub": "8"}))
    seen = plugin.authenticate(ends), plugin.authenticate(lasts)
    with monkeypatch.context() as patched:
        patched.setattr(module, "_payload", None)
        now[0] = 1999.9
        assert (plugin.authenticate(ends), plugin.authenticate(lasts)) == seen
    now[0] = 2000.0
    with pytest.raises(Refused, match="expired"):
        plugin.authenticate(ends)
    assert plugin.authenticate(lasts) == seen[1]


def test_the_memory_of_tokens_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 3)
    plugin = JwtAuthenticator(HMAC, lambda: 0.0)
    for user in range(10):
        assert plugin.authenticate(shown(token({"sub": str(user)}))).user == user
    assert len(plugin._known) == 3


@given(
    st.text(max_size=200)
    | st.lists(
        st.binary(max_size=60).map(lambda part: base64.urlsafe_b64encode(part).decode().rstrip("=")),
        min_size=3,
        max_size=3,
    ).map(".".join)
)
def test_any_text_is_an_identity_or_none(text):
    assert judged(text) is None


header_values = st.sampled_from(["HS256", "none", "RS256", "a", "", None, 7, [], {}, True])


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ", "jwk"]), header_values), st.binary(max_size=40)
)
def test_any_header_and_claims_are_an_identity_none_or_refused(header, payload):
    try:
        answer = judged(raw(payload, json.dumps(header).encode()))
    except Refused:
        return
    assert answer is None or isinstance(answer, Identity)


@pytest.mark.parametrize("key", [None, *KEYS])
def test_what_is_minted_is_accepted(file, key):
    signs, verifies = file(SECRET), file(SECRET)
    if key is not None:
        signs = file(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "private")
        verifies = file(public_pem(key), "public")
    text = mint(
        signs, user="7", name="ada", subscribe=["job_events/42"], emit=["*"], expires_in=60.5, now=lambda: 1000.25
    )
    plugin = jwt(verifies, None, now=lambda: 1060.0)
    assert plugin.authenticate(shown(text)) == Identity(7, "ada", Grants(("job_events/42",), ("*",)), 1061.0)


def test_a_minted_token_holds_no_more_than_was_said(file):
    text = mint(file(SECRET), user="ada")
    claims = pyjwt.decode(text, SECRET, algorithms=["HS256"])
    assert claims.pop("iat") == pytest.approx(time.time(), abs=60)
    assert claims == {"sub": "ada"}


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ({"user": ""}, "sub"),
        ({"user": 7, "subscribe": ["jobs"]}, "--subscribe: got .jobs., wanted GROUP/TYPE"),
        ({"user": 7, "emit": ["a b/c"]}, "--emit: got .a b/c., wanted GROUP/TYPE"),
        ({"user": 7, "name": "x" * 201}, "name"),
        ({"user": 7, "expires_in": 0}, "--expires: got 0, wanted seconds"),
        ({"user": 7, "expires_in": float("nan")}, "--expires: got nan"),
        ({"user": 7, "expires_in": float("inf")}, "--expires: got inf"),
        ({"user": 7, "expires_in": 1e300}, "exp"),
    ],
)
def test_a_token_that_would_be_refused_is_not_minted(file, given_, why):
    with pytest.raises(ConfigError, match=why):
        mint(file(SECRET), **given_)


def test_a_key_that_can_not_sign_is_a_named_mistake(file):
    with pytest.raises(ConfigError, match=r"--key .*key: .*a public one can't sign"):
        mint(file(public_pem(RSA)), user=7)
