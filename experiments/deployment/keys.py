"""Keys and certificates: those of sites, as Flower's SuperNodes have them, and those of the server.

A private key is made where it is used, is readable by its owner alone, and never travels.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically
from unlearning.records.seal import canonical

__all__ = [
    "certify",
    "is_signed",
    "make_site_key",
    "normal_form",
    "read_public",
    "sign",
    "write_secret",
]

_CURVE = ec.SECP384R1()
_HASH = hashes.SHA384()
_CA_DAYS, _SERVER_DAYS = 3650, 365


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
    key = ec.generate_private_key(_CURVE)
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
    return key.sign(canonical(value), ec.ECDSA(_HASH)).hex()


def is_signed(public: str, signature: str, value: object) -> bool:
    """Return whether a value carries the signature of a public key; never raises for bad input."""
    try:
        key = serialization.load_pem_public_key(public.encode())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(bytes.fromhex(signature), canonical(value), ec.ECDSA(_HASH))
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def certify(folder: Path, host: str) -> None:
    """Make a certificate authority and the server's certificate for ``host`` in a folder.

    ``ca.crt`` is what sites are given; ``ca.key`` and ``server.key`` stay (0600).
    """
    authority = ec.generate_private_key(_CURVE)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"federation at {host}")])
    begin = datetime.now(UTC) - timedelta(minutes=5)  # clocks differ
    root = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(authority.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certify=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False
        )
        .sign(authority, _HASH)
    )
    server = ec.generate_private_key(_CURVE)
    issued = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(name)
        .public_key(server.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=_SERVER_DAYS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certify=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
        .sign(authority, _HASH)
    )
    write_secret(folder / "ca.key", _private_pem(authority))
    write_secret(folder / "server.key", _private_pem(server))
    write_atomically(folder / "ca.crt", root.public_bytes(serialization.Encoding.PEM))
    write_atomically(folder / "server.crt", issued.public_bytes(serialization.Encoding.PEM))


def _usage(*, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certify,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def _names(host: str) -> list[x509.GeneralName]:
    """Return what the certificate is good for: the host, and the server's own loopback."""
    found: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    try:
        given: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        given = x509.DNSName(host)
    return found if given in found else [given, *found]


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
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
