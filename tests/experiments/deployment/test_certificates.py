"""What sites trust: the authority, whoever the server's certificate is at the moment."""

import json
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.deployment import certificates
from experiments.deployment.server import Server
from unlearning.errors import ConfigError

HOST = "fl.example.org"


@pytest.fixture
def server(tmp_path):
    return Server.init(tmp_path / "FED", f"{HOST}:9092")


def greeted(tls, authority, host):
    """Return what a client that trusts ``authority`` hears of such a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    trusting = ssl.create_default_context(cafile=authority)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            taken, _ = listening.accept()
            with taken:
                try:
                    with context.wrap_socket(taken, server_side=True) as safe:
                        safe.sendall(b"hello")
                except ssl.SSLError:
                    pass  # the client did not trust it

        at_work = threading.Thread(target=answer)
        at_work.start()
        try:
            with (
                socket.create_connection(listening.getsockname()) as plain,
                trusting.wrap_socket(plain, server_hostname=host) as safe,
            ):
                return safe.recv(5)
        finally:
            at_work.join()


def test_a_renewed_certificate_is_taken_by_who_trusts_the_authority(server, tmp_path):
    tls = server.folder / "tls"
    handed = tmp_path / "ca.crt"
    handed.write_bytes((tls / "ca.crt").read_bytes())
    before = {path.name: path.read_bytes() for path in tls.iterdir()}
    found = CliRunner().invoke(app, ["federation", "renew", str(server.folder), "--json"])
    assert found.exit_code == 0, found.output
    until = datetime.fromisoformat(json.loads(found.stdout)["certified_until"])
    assert timedelta(days=364) < until - datetime.now(UTC) < timedelta(days=366)
    after = {path.name: path.read_bytes() for path in tls.iterdir()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"server.crt", "server.key"}
    assert after.keys() == before.keys()
    assert (tls / "server.key").stat().st_mode & 0o777 == 0o600
    for host in (HOST, "localhost", "127.0.0.1"):
        assert greeted(tls, handed, host) == b"hello"
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(tls, handed, "elsewhere.example.org")
    other = Server.init(tmp_path / "OTHER", f"{HOST}:9092")
    with pytest.raises(ssl.SSLCertVerificationError):
        greeted(other.folder / "tls", handed, HOST)


def test_without_its_authority_nothing_is_renewed(server, tmp_path):
    tls = server.folder / "tls"
    other = Server.init(tmp_path / "OTHER", f"{HOST}:9092").folder / "tls"
    before = (tls / "server.crt").read_bytes()
    for content, told in (
        ((other / "ca.key").read_bytes(), "is not the key of"),
        (b"damaged", "cannot be read"),
        (None, "bring ca.key and ca.crt back"),
    ):
        (tls / "ca.key").unlink()
        if content is not None:
            (tls / "ca.key").write_bytes(content)
        with pytest.raises(ConfigError, match=told):
            server.renew()
        if content is None:
            break
    assert (tls / "server.crt").read_bytes() == before


@pytest.mark.parametrize(
    ("days", "told"), [(365, None), (9, "ends in 8 days"), (-1, "the certificate has ended")]
)
def test_status_tells_of_a_certificate_that_ends(tmp_path, monkeypatch, days, told):
    monkeypatch.setattr(certificates, "_SERVER_DAYS", days)
    if days < 0:  # a certificate cannot end before it begins
        then = datetime.now(UTC) - timedelta(days=9)
        monkeypatch.setattr(certificates, "_begin", lambda: then)
        monkeypatch.setattr(certificates, "_SERVER_DAYS", 9 + days)
    made = Server.init(tmp_path / "FED", f"{HOST}:9092")
    found = CliRunner().invoke(app, ["federation", "status", str(made.folder)])
    assert found.exit_code == 0
    assert ("certificate" in found.output) is (told is not None)
    assert told is None or told in " ".join(found.output.split())
