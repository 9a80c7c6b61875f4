"""Keys from files and from JWKS."""

import base64
import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from towerbus.auth.keys import KeyProblem, jwks, signing, verifying
from towerbus.errors import ConfigError

HS = ("HS256", "HS384", "HS512")
RS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
PRIVATE = [
    (RSA, RS),
    (P256, ("ES256",)),
    (ec.generate_private_key(ec.SECP384R1()), ("ES384",)),
    (ec.generate_private_key(ec.SECP521R1()), ("ES512",)),
    (ec.generate_private_key(ec.SECP256K1()), ("ES256K",)),
    (ed25519.Ed25519PrivateKey.generate(), ("EdDSA",)),
    (ed448.Ed448PrivateKey.generate(), ("EdDSA",)),
]


def private_pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_jwk(key, **more):
    reader = {"RSA": RSAAlgorithm, "Ell": ECAlgorithm}.get(type(key).__name__.lstrip("_")[:3], OKPAlgorithm)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        reader = ECAlgorithm
    return reader.to_jwk(key.public_key(), as_dict=True) | more


def oct_jwk(secret, **more):
    return {"kty": "oct", "k": base64.urlsafe_b64encode(secret).rstrip(b"=").decode()} | more


@pytest.fixture
def file(tmp_path):
    def file(content):
        path = tmp_path / "key"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    return file


@pytest.mark.parametrize(("private", "algorithms"), PRIVATE)
def test_the_kind_of_a_key_decides_its_algorithms(file, private, algorithms):
    (found,) = verifying(file(public_pem(private)))
    assert found.algorithms == algorithms
    assert found.kid is None
    (found,) = verifying(file({"keys": [public_jwk(private, kid="k1")]}))
    assert (found.algorithms, found.kid) == (algorithms, "k1")
    assert signing(file(private_pem(private))).algorithms == algorithms


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"x" * 32, b"x" * 32),
        (b"0123456789abcdef" * 4 + b"\n", b"0123456789abcdef" * 4),
        (b"0123456789abcdef" * 4 + b"\r\n", b"0123456789abcdef" * 4),
        (bytes(range(128, 159)) + b"\n", bytes(range(128, 159)) + b"\n"),
        (b" " + b"x" * 31, b" " + b"x" * 31),
    ],
)
def test_a_secret_is_a_line_of_text_or_all_of_its_bytes(file, content, secret):
    (found,) = verifying(file(content))
    assert (found.material, found.algorithms) == (secret, HS)
    assert signing(file(content)).material == secret


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "got an empty file"),
        (b" \n", "got an empty file"),
        (b"x" * 31 + b"\n", "got 31 bytes"),
        (b"x" * 5000, "got 5000 bytes"),
        (b"x" * (1024 * 1024 + 1), "got more than"),
        (private_pem(RSA), "got a private key.*openssl pkey"),
        (b"-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n", "got a certificate"),
        (b"-----BEGIN PUBLIC KEY-----\nbm9uc2Vuc2U=\n-----END PUBLIC KEY-----\n", "no public key, or a broken one"),
        (P256.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "neither a secret nor PEM"),
        (P256.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "neither a secret nor PEM"),
        (public_pem(rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits"),
        (public_pem(dsa.generate_private_key(2048)), "of a kind that JWTs can't be verified with"),
        (b"{" + b"x" * 40, "no JSON"),
        ({"keys": 3}, 'without a list of keys in "keys"'),
        ({"keys": []}, "it is empty"),
        ({"keys": [{"kty": "unknown"}, public_jwk(RSA, use="enc")]}, "a key of a kind .*; a key that is not for sig"),
        ({"keys": [public_jwk(RSA), RSAAlgorithm.to_jwk(RSA, as_dict=True)]}, "private key among the keys"),
        ({"keys": [public_jwk(RSA, alg="HS256")]}, "an algorithm that is not of its kind"),
        ({"keys": [oct_jwk(b"short")]}, "got 5 bytes"),
        ({"keys": [{"kty": "RSA", "n": "AQAB", "e": 3}]}, "or broken"),
    ],
)
def test_a_key_that_can_not_be_used_is_a_named_mistake(file, content, got):
    path = file(content)
    with pytest.raises(ConfigError, match=got) as caught:
        verifying(path)
    assert str(caught.value).startswith(f"--auth jwt:{path}: ")
    assert "wanted an HMAC secret of 32 bytes or more, a PEM public key or a JWKS" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (public_pem(RSA), "a public one can't sign"),
        (private_pem(RSA, BestAvailableEncryption(b"pass")), "with a passphrase"),
        (b"-----BEGIN PRIVATE KEY-----\nbm9uc2Vuc2U=\n-----END PRIVATE KEY-----\n", "broken private key"),
        (b"short", "got 5 bytes"),
        ({"keys": [public_jwk(RSA)], "kty": "RSA"}, "got JSON"),
    ],
)
def test_a_key_that_can_not_sign_is_a_named_mistake(file, content, got):
    path = file(content)
    with pytest.raises(ConfigError, match=got) as caught:
        signing(path)
    assert str(caught.value).startswith(f"--key {path}: ")


@pytest.mark.parametrize("path", ["/nowhere/key", "/", "nul\0"])
def test_a_file_that_can_not_be_read_is_a_named_mistake(path):
    with pytest.raises(ConfigError, match=r"can't be read|is no path"):
        verifying(path)


def test_a_set_is_read_past_what_it_can_not_use(file):
    keys = [
        {"kty": "unknown"},
        public_jwk(RSA, use="enc", kid="e"),
        public_jwk(RSA, alg="PS256", kid=7),
        oct_jwk(os.urandom(32), kid="o"),
        public_jwk(P256, kid="p", use="sig"),
    ]
    found = verifying(file({"keys": keys}))
    assert [(key.kid, key.algorithms) for key in found] == [(None, ("PS256",)), ("o", HS), ("p", ("ES256",))]
    found = jwks(json.dumps({"keys": keys}).encode(), secrets=False)
    assert [key.kid for key in found] == [None, "p"]
    assert [key.kid for key in verifying(file(public_jwk(P256, kid="one")))] == ["one"]


def test_neither_repr_nor_error_of_a_key_hold_the_secret(file):
    (found,) = verifying(file(b"hunter2" * 5))
    assert "hunter2" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        verifying(file(b"hunter2"))
    assert "hunter2" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["kty", "kid", "use", "alg", "crv", "x", "y", "n", "e", "k", "key_ops"])
kinds = st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig", "RS256"])


@given(st.lists(st.dictionaries(members, kinds | json_values), max_size=3) | json_values)
def test_any_json_is_a_set_of_keys_or_a_problem(items):
    for content in (json.dumps({"keys": items}), json.dumps(items)):
        try:
            assert jwks(content.encode(), secrets=True)
        except KeyProblem:
            pass
