"""Keys: those of sites, as Flower's SuperNodes have them, and what is signed with them.

A private key is made where it is used, is readable by its owner alone, and never travels.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically
from unlearning.records.seal import canonical

__all__ = [
    "CURVE",
    "HASH",
    "is_signed",
    "make_site_key",
    "normal_form",
    "private_pem",
    "read_public",
    "sign",
    "write_secret",
]

CURVE = ec.SECP384R1()
HASH = hashes.SHA384()


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read.

    Raises
    ------
    ConfigError
        If there is one already: a key is not overwritten.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists already; name another folder") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def make_site_key(path: Path, name: str) -> Path:
    """Make a site's key at ``path`` (0600), as Flower's SuperNodes take it; return the public half.

    Raises
    ------
    ConfigError
        If there is one already.
    """
    key = ec.generate_private_key(CURVE)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    write_secret(path, private)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    beside = path.with_name(f"{name}.pub")
    write_atomically(beside, public + f" {name}\n".encode())
    return beside


def read_public(path: Path) -> str:
    """Return the public key of a site's ``.pub`` file in the form that the roster keeps.

    Raises
    ------
    ConfigError
        If it holds none of the kind that Flower takes.
    """
    try:
        key = serialization.load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path} is no public key of a site ({error}); ask for the .pub file that "
            "`fedunlearn site init` made"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path} is a key of another kind; an EC key (P-384) is needed")
    return _pem(key)


def normal_form(public: bytes | str) -> str:
    """Return a public key that Flower names (PEM) in the form that the roster keeps; or ``""``."""
    raw = public.encode() if isinstance(public, str) else public
    try:
        key = serialization.load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return _pem(key) if isinstance(key, ec.EllipticCurvePublicKey) else ""


def sign(private: Path, value: object) -> str:
    """Return the signature (ECDSA, SHA-384; hex) of a JSON value in canonical form.

    Raises
    ------
    ConfigError
        If the key cannot be read.
    """
    try:
        key = serialization.load_ssh_private_key(private.read_bytes(), None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"the site's key {private} cannot be read ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"the site's key {private} is of another kind; P-384 is needed")
    return key.sign(canonical(value), ec.ECDSA(HASH)).hex()


def is_signed(public: str, signature: str, value: object) -> bool:
    """Return whether a value carries the signature of a public key; never raises for bad input."""
    try:
        key = serialization.load_pem_public_key(public.encode())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(bytes.fromhex(signature), canonical(value), ec.ECDSA(HASH))
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM, in PKCS #8 and not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _pem(key: ec.EllipticCurvePublicKey) -> str:
    found = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found.decode()
