"""The server's certificates: an authority of its own, and what that vouches for.

Sites trust the authority alone, so the server's certificate is renewed without a word to them.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from experiments.deployment.keys import CURVE, HASH, private_pem, write_secret
from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["certify", "renew", "valid_until"]

_CA_DAYS, _SERVER_DAYS = 3650, 365


def certify(folder: Path, host: str) -> None:
    """Make a certificate authority and the server's certificate for ``host`` in a folder.

    ``ca.crt`` is what sites are given; ``ca.key`` and ``server.key`` stay (0600).
    """
    authority = ec.generate_private_key(CURVE)
    name = _called(f"federation at {host}")
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    root = (
        _begun(name, name, authority.public_key(), _CA_DAYS, certify=True)
        .add_extension(identifier, critical=False)
        .sign(authority, HASH)
    )
    key, issued = _issued(authority, name, host)
    write_secret(folder / "ca.key", private_pem(authority))
    write_secret(folder / "server.key", key)
    write_atomically(folder / "ca.crt", root.public_bytes(serialization.Encoding.PEM))
    write_atomically(folder / "server.crt", issued)


def renew(folder: Path, host: str) -> None:
    """Make the server's key and certificate anew, by the authority that is there.

    Raises
    ------
    ConfigError
        If the authority's key or certificate is not there, or is damaged.
    """
    try:
        authority = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        root = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the authority in {folder} cannot be read ({error}); bring ca.key and ca.crt back "
            "from a backup: with another authority every site needs a new invitation"
        ) from error
    if not isinstance(authority, ec.EllipticCurvePrivateKey) or (
        authority.public_key() != root.public_key()
    ):
        raise ConfigError(f"{folder / 'ca.key'} is not the key of {folder / 'ca.crt'}")
    key, issued = _issued(authority, root.subject, host)
    # Made beside the old key and put in its place: at no moment is there none.
    fresh = folder / "server.key.new"
    fresh.unlink(missing_ok=True)
    write_secret(fresh, key)
    fresh.replace(folder / "server.key")
    write_atomically(folder / "server.crt", issued)


def valid_until(certificate: Path) -> datetime:
    """Return until when a certificate is good, in UTC.

    Raises
    ------
    ConfigError
        If there is none, or it is damaged.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{certificate} cannot be read ({error}); make it anew with `fedunlearn federation "
            "renew`"
        ) from error
    return found.not_valid_after_utc


def _issued(
    authority: ec.EllipticCurvePrivateKey, issuer: x509.Name, host: str
) -> tuple[bytes, bytes]:
    """Return a new key for the server and its certificate, both as PEM."""
    server = ec.generate_private_key(CURVE)
    issued = (
        _begun(_called(host), issuer, server.public_key(), _SERVER_DAYS, certify=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
        .sign(authority, HASH)
    )
    return private_pem(server), issued.public_bytes(serialization.Encoding.PEM)


def _called(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begin() -> datetime:
    return datetime.now(UTC) - timedelta(minutes=5)  # clocks differ


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: int,
    *,
    certify: bool,
) -> x509.CertificateBuilder:
    """Return what an authority's certificate and a server's have in common."""
    begin = _begin()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(
            x509.BasicConstraints(ca=certify, path_length=0 if certify else None), critical=True
        )
        .add_extension(_usage(certify=certify), critical=True)
    )


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
