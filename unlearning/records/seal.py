"""The key of a run folder: signatures that a third party can check with the public half alone.

What is signed are the bytes of a JSON value in canonical form, so that any changed byte shows and
the order of keys does not matter.

References
----------
Josefsson, Liusvaara, "Edwards-Curve Digital Signature Algorithm (EdDSA)", RFC 8032, 2017.
Rundgren, Jordan, Erdtman, "JSON Canonicalization Scheme (JCS)", RFC 8785, 2020.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from unlearning.errors import LedgerError
from unlearning.records.files import room, write_atomically

__all__ = ["Seal", "canonical", "fingerprint_of", "is_signed_by", "read_public"]


_LARGEST = 2**53  # whole numbers below it are written as they are
_PLAIN = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _is_text(value: object) -> bool:
    """Return whether a value is text that every library writes alike, as names and digests are."""
    return type(value) is str and value.isascii() and value.isprintable()


def _is_plain(value: object) -> bool:
    return _is_text(value) or (type(value) is int and abs(value) < _LARGEST)


def canonical(value: object) -> bytes:
    """Return a plain JSON value as the bytes that are signed.

    Raises
    ------
    LedgerError
        If it cannot be written so: not finite, a whole number beyond 2**53, no JSON value.
    """
    if type(value) is dict and all(map(_is_text, value)) and all(map(_is_plain, value.values())):
        return _PLAIN.encode(value).encode()  # the same bytes, in a fifth of the time
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, TypeError, ValueError) as error:
        raise LedgerError(f"this cannot be signed as JSON: {error}") from error


def fingerprint_of(public_hex: str) -> str:
    """Return the SHA-256 of a public key (32 bytes in hex), its first 32 digits."""
    return hashlib.sha256(bytes.fromhex(public_hex)).hexdigest()[:32]


def is_signed_by(public_hex: str, signature_hex: str, value: object) -> bool:
    """Return whether a value carries the signature of a public key; never raises for bad input."""
    try:
        public, signature = bytes.fromhex(public_hex), bytes.fromhex(signature_hex)
        if (public.hex(), signature.hex()) != (public_hex, signature_hex):
            return False  # one signature has one spelling: capitals would be a changed byte
        Ed25519PublicKey.from_public_bytes(public).verify(signature, canonical(value))
    except (InvalidSignature, LedgerError, TypeError, ValueError):
        return False
    return True


def read_public(path: Path) -> str:
    """Return the public key that a PEM file holds, as hex of its 32 bytes.

    Raises
    ------
    LedgerError
        If the file holds none.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise LedgerError(
            f"{path} is no public key ({error}); name the .pub file of the run folder"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise LedgerError(f"{path} is a key of another kind; an Ed25519 public key is needed")
    return key.public_bytes_raw().hex()


class Seal:
    """A private key in a file of its own (0600), its public half beside it (``*.pub``).

    Parameters
    ----------
    key : Ed25519PrivateKey
        Made by :meth:`make` or read by :meth:`read`.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key().public_bytes_raw().hex()

    @classmethod
    def make(cls, path: Path) -> Seal:
        """Make a new key at ``path`` and its public half at ``path`` with the ending ``.pub``.

        Of two processes that make one at the same time, the second takes the first one's.

        Raises
        ------
        LedgerError
            If it cannot be written.
        """
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return cls.read(path)
        except OSError as error:
            with suppress(OSError):
                path.unlink()  # a half of it would be taken for the key
            raise LedgerError(
                f"{path} cannot be written: {error.strerror}{room(path, len(pem))}; remove the "
                "cause and run it again"
            ) from error
        made = cls(key)
        made.write_public(path.with_suffix(".pub"))
        return made

    @classmethod
    def read(cls, path: Path) -> Seal:
        """Return the key at ``path``.

        Raises
        ------
        LedgerError
            If there is none, or it is damaged.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise LedgerError(
                f"the signing key {path} cannot be read ({error}); restore it from a backup, or "
                "make a new one with `fedunlearn rekey RUN --reason ...`"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise LedgerError(f"the signing key {path} is of another kind; Ed25519 is needed")
        return cls(key)

    def write_public(self, path: Path) -> None:
        """Write the public half as PEM."""
        pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_atomically(path, pem)

    @property
    def public(self) -> str:
        """The public key: hex of its 32 bytes."""
        return self._public

    def sign(self, value: Mapping[str, object]) -> str:
        """Return the signature (hex of 64 bytes) of a JSON value in canonical form."""
        return self._key.sign(canonical(value)).hex()
