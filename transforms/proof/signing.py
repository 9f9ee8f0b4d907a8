"""Ed25519 signatures (RFC 8032) over receipts, and the keys for them: PEM, as `openssl genpkey
-algorithm ed25519` writes them. No message has any of a key but the fingerprint of a public one.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from transforms.media.errors import ConfigError

MAKE_PRIVATE = "expected an ed25519 key in PEM, as `openssl genpkey -algorithm ed25519` makes"
MAKE_PUBLIC = "expected the public half in PEM, as `openssl pkey -pubout` gives of the private one"
_PRIVATE_MARK = b"PRIVATE KEY-----"
_PUBLIC_MARK = b"PUBLIC KEY-----"
_ENCRYPTED_MARKS = (b"-----BEGIN ENCRYPTED ", b"Proc-Type: 4,ENCRYPTED")


def private_key(shown: str, pem: bytes) -> Ed25519PrivateKey:
    """Returns the key that receipts are signed with.

    Args:
      shown: how it is named in messages.
      pem: PKCS #8 (RFC 5958), without a password.

    Raises:
      ConfigError: it is none.
    """
    if any(mark in pem for mark in _ENCRYPTED_MARKS):
        raise ConfigError(
            f"{shown}: the key has a password, expected one without (`openssl pkey`), where only "
            "who may sign can read it"
        )
    if _PUBLIC_MARK in pem and _PRIVATE_MARK not in pem:
        raise ConfigError(f"{shown}: is a public key, expected the private one to sign with")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{shown}: is no key that can be read, {MAKE_PRIVATE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{shown}: is {_kind(key)}, {MAKE_PRIVATE}")
    return key


def public_key(shown: str, pem: bytes) -> Ed25519PublicKey:
    """Returns the key that signatures are checked by. Args: as of `private_key`. Raises:
    ConfigError: it is none.
    """
    if _PRIVATE_MARK in pem:
        raise ConfigError(f"{shown}: is a private key, which nobody else needs; {MAKE_PUBLIC}")
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{shown}: is no key that can be read, {MAKE_PUBLIC}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{shown}: is {_kind(key)}, expected one of ed25519")
    return key


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """Returns the 32 bytes of a public key (RFC 8032 s5.1.5)."""
    return key.public_bytes_raw()


def fingerprint(data: bytes) -> str:
    """Returns what people compare public keys by: SHA-256 of the key in DER
    (SubjectPublicKeyInfo), as `openssl pkey -pubin -outform DER | sha256sum` gives it. Raises:
    ValueError.
    """
    der = Ed25519PublicKey.from_public_bytes(data).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def is_signed_by(data: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature over a message is right. Args: data: the bytes of the public key."""
    try:
        Ed25519PublicKey.from_public_bytes(data).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _kind(key: object) -> str:
    """Returns what sort of key one is."""
    name = type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    return f"a key of {name}"
