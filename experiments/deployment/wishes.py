"""What a site asks for: signed, for its own data alone, each wish once.

A wish is a JSON value in canonical form (RFC 8785), signed with the key that the site takes part
with. It is carried on the site's next reply or brought by hand; on either way the same is checked.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from experiments.deployment import keys
from experiments.deployment.members import MEMBER, Member, Members
from unlearning.columns import Named
from unlearning.errors import RequestError
from unlearning.records.seal import canonical
from unlearning.request import Request, Scope

__all__ = [
    "MAX_AGE",
    "Inbox",
    "Wish",
    "check_time",
    "compose",
    "keep_once",
    "kept_at",
    "log_verdict",
    "parse",
    "read",
    "read_text",
    "replayed",
]

_TAG = "fedunlearn-wish-1"
_FIELDS = {"tag", "federation", "client", "scope", "samples", "nonce", "time"}
_OF_FEATURES = {"features", "called"}  # fields of a wish that names features, and of no other
MAX_AGE = timedelta(days=30)  # a wish brought by hand may take a while
_AHEAD = timedelta(minutes=5)  # clocks differ
_MOST_BYTES = 1 << 20

Wish = Mapping[str, Any]  # {"body": ..., "signature": ...}


def compose(
    federation: str,
    client: int,
    private: Path,
    samples: Sequence[int] | None,
    at: datetime | None = None,
    *,
    features: Named | None = None,
) -> dict[str, Any]:
    """Return a signed wish.

    Parameters
    ----------
    federation, client : str, int
        Which, and of which site.
    private : Path
        The site's key.
    samples : sequence of int or None
        Positions in the training set; None, without ``features``: to leave.
    at : datetime, optional
        Now.
    features : Named, optional
        Values that the site withdraws, and what it calls them.
    """
    named: dict[str, Any] = {}
    if features is not None:
        named = {"features": list(features.positions), "called": list(features.called)}
    body: dict[str, Any] = {
        "tag": _TAG,
        "federation": federation,
        "client": client,
        "scope": "feature" if named else "client" if samples is None else "sample",
        "samples": sorted(set(samples or ())),
        **named,
        "nonce": secrets.token_hex(16),
        "time": (at or datetime.now(UTC)).isoformat(timespec="seconds"),
    }
    return {"body": body, "signature": keys.sign(private, body)}


def read(path: Path) -> Wish:
    """Return the wish that a file holds.

    Raises
    ------
    RequestError
        If it holds none.
    """
    return parse(read_text(path))


def read_text(path: Path) -> str:
    """Return the text of a signed file.

    Raises
    ------
    RequestError
        If it cannot be read, or is larger than any can be.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise RequestError(f"{path} is larger than any wish; ask with `fedunlearn site ask`")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read ({error})") from error


def parse(text: str) -> Wish:
    """Return the wish that a text holds.

    Raises
    ------
    RequestError
        If it holds none.
    """
    try:
        found = json.loads(text)
        body = found["body"]
        good = (
            body.keys() == _FIELDS | (_OF_FEATURES if body["scope"] == "feature" else set())
            and isinstance(found["signature"], str)
            and all(
                type(i) is int and i >= 0
                for i in [body["client"], *body["samples"], *body.get("features", ())]
            )
            and all(isinstance(body[k], str) for k in _FIELDS - {"client", "samples"})
            and all(isinstance(word, str) for word in body.get("called", ()))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"this is no wish of a site ({type(error).__name__})") from error
    if not good or body["tag"] != _TAG or body["scope"] not in ("client", "sample", "feature"):
        raise RequestError("this is no wish of a site; ask with `fedunlearn site ask`")
    if (body["scope"] == "sample") != bool(body["samples"]):
        raise RequestError("a wish names samples, or none to leave; this one does neither")
    if (body["scope"] == "feature") != bool(body.get("features")):
        raise RequestError("a wish to withdraw features names them; this one does not")
    return {"body": body, "signature": found["signature"]}


class Inbox:
    """Judges wishes and remembers each, so that none counts twice.

    Parameters
    ----------
    folder : Path
        Where they are kept: one file per wish that was taken, and ``log.jsonl``.
    federation : str
        Its id.
    members : Members
        Whose keys count.
    """

    def __init__(self, folder: Path, federation: str, members: Members) -> None:
        self._folder, self._federation, self._members = folder, federation, members

    def take(self, wish: Wish, sender: int | None = None, at: datetime | None = None) -> Request:
        """Return the request that a wish means, if it is good; log it either way.

        Parameters
        ----------
        wish : Wish
            As :func:`parse` gives it.
        sender : int, optional
            The client whose reply carried it, by its key; None: brought by hand.
        at : datetime, optional
            Now.

        Raises
        ------
        RequestError
            Why it is refused.
        """
        body = wish["body"]
        try:
            member = self._judge(wish, sender, at or datetime.now(UTC))
        except RequestError as error:
            self.log(body, f"refused: {error}")
            raise
        keep_once(self._kept(body), wish)
        client = member.client
        return Request(
            Scope(body["scope"]),
            clients=() if body["scope"] == "sample" else (client,),
            samples={client: tuple(body["samples"])} if body["samples"] else {},
            features=tuple(sorted(set(body.get("features", ())))),
            called=tuple(body.get("called", ())),
            asked_by=f"{member.name} (own key)",
            id=f"wish-{body['nonce'][:16]}",
        )

    def drop(self, wish: Wish) -> None:
        """Let go of a wish that could not be entered: it may be brought again."""
        self._kept(wish["body"]).unlink(missing_ok=True)

    def log(self, body: Mapping[str, Any], verdict: str) -> None:
        """Write a line about a wish."""
        log_verdict(self._folder, body, verdict)

    def _kept(self, body: Mapping[str, Any]) -> Path:
        return kept_at(self._folder, f"{body['client']:05d}", str(body["nonce"]))

    def _judge(self, wish: Wish, sender: int | None, at: datetime) -> Member:
        """Return who asks, or raise why it must not be."""
        body = wish["body"]
        if body["federation"] != self._federation:
            raise RequestError(
                f"the wish is for federation {body['federation']!r}, this is {self._federation!r}"
            )
        member = self._members.of_client(body["client"])
        if member is None:
            raise RequestError(f"no site of this federation is client {body['client']}")
        if sender is not None and sender != member.client:
            raise RequestError(
                f"client {sender} asks for data of client {member.client}; a site asks for its "
                "own alone"
            )
        if not keys.is_signed(member.key, wish["signature"], body):
            raise RequestError(
                f"the wish is not signed with the key of client {member.client} ({member.name}): "
                "it was changed, or somebody else made it"
            )
        if member.state != MEMBER:
            raise RequestError(f"client {member.client} ({member.name}) has {member.state} already")
        check_time(body["time"], at)
        if self._kept(body).exists():
            raise replayed(body)
        return member


def check_time(text: str, at: datetime) -> None:
    """Refuse what was signed too long ago, or in the future.

    Raises
    ------
    RequestError
        If so, or if it is no time with a zone.
    """
    try:
        age = at - datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise RequestError(f"the wish's time {text!r} is none with a zone") from error
    if age > MAX_AGE or -age > _AHEAD:
        raise RequestError(
            f"the wish is of {text}; it must be at most {MAX_AGE.days} days old and not of the "
            "future: ask anew, or set the site's clock"
        )


def kept_at(folder: Path, who: str, nonce: str) -> Path:
    """Return where a signed request is kept, so that it counts once.

    Raises
    ------
    RequestError
        If the nonce could not name a file, or is too short to be one.
    """
    if not (nonce.isascii() and nonce.isalnum() and 16 <= len(nonce) <= 64):
        raise RequestError("the wish has no nonce of 16 letters and digits or more")
    return folder / f"{who}-{nonce}.json"


def keep_once(path: Path, signed: Wish) -> None:
    """Keep a signed request where :func:`kept_at` says, and log the verdict beside it.

    Raises
    ------
    RequestError
        If it is there already.
    """
    body, folder = signed["body"], path.parent
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:  # of two at once, one is first
            file.write(canonical(dict(signed)))
    except FileExistsError:
        log_verdict(folder, body, "refused: replayed")
        raise replayed(body) from None
    log_verdict(folder, body, "taken")


def log_verdict(folder: Path, body: Mapping[str, Any], verdict: str) -> None:
    """Write a line about a signed request."""
    folder.mkdir(parents=True, exist_ok=True)
    utc = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"utc": utc, "verdict": verdict, "wish": dict(body)}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")


def replayed(body: Mapping[str, Any]) -> RequestError:
    """Return why a signed request is refused that came before."""
    return RequestError(f"this wish came before (nonce {body['nonce'][:8]}...): it counts once")
