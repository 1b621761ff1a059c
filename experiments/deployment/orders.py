"""What operators of a federation ask for: whatever a site must not ask, signed with their own keys.

A site asks for its own data alone. Classes, tasks, features and others' data are forgotten at the
word of an operator whose key the federation knows; the ledger keeps body and signature.
"""

from __future__ import annotations

import json
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from experiments.deployment import keys
from experiments.deployment.wishes import (
    check_time,
    keep_once,
    kept_at,
    log_verdict,
    replayed,
)
from experiments.runs.admission import compose as request_of
from unlearning.columns import Columns, names_file
from unlearning.errors import ConfigError, RequestError
from unlearning.records.files import write_atomically
from unlearning.request import Request

__all__ = ["TAG", "Operator", "Operators", "Orders", "compose", "is_order", "parse"]

TAG = "fedunlearn-order-1"
_FIELDS = {"tag", "federation", "operator", "what", "nonce", "time"}
_WHAT = ("clients", "samples", "classes", "tasks", "features")  # lists; as of `fedunlearn request`

Order = Mapping[str, Any]  # {"body": ..., "signature": ...}


@dataclass(frozen=True)
class Operator:
    """Somebody who may ask for everything.

    Parameters
    ----------
    name : str
        In words; named once.
    key : str
        Public key, PEM.
    active : bool
        Whether the key still counts.
    """

    name: str
    key: str
    active: bool = True


class Operators:
    """The content of ``operators.toml``; every change is written at once.

    Raises
    ------
    ConfigError
        If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._known = path, dict[str, Operator]()
        if path.exists():
            try:
                for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("operator", []):
                    self._known[entry["name"]] = Operator(**entry)
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise ConfigError(f"{path} is damaged ({error}); restore a backup") from error

    def all(self) -> list[Operator]:
        """Return them, by name."""
        return [self._known[name] for name in sorted(self._known)]

    def named(self, name: str) -> Operator | None:
        """Return the operator of a name."""
        return self._known.get(name)

    def add(self, name: str, public: Path) -> Operator:
        """Enter an operator's key.

        Raises
        ------
        ConfigError
            If name or key are there already, or the file holds no key.
        """
        key = keys.read_public(public)
        for known in self._known.values():
            if known.key == key or known.name == name:
                raise ConfigError(
                    f"operator {known.name!r} has this {'key' if known.key == key else 'name'} "
                    "already; use another"
                )
        return self._put(Operator(name, key))

    def remove(self, name: str) -> Operator:
        """Let an operator's key count no longer; the name is not given again.

        Raises
        ------
        ConfigError
            If there is none of that name.
        """
        found = self._known.get(name)
        if found is None:
            names = ", ".join(sorted(self._known)) or "none"
            raise ConfigError(f"no operator is named {name!r} (known: {names})")
        return self._put(replace(found, active=False))

    def _put(self, one: Operator) -> Operator:
        self._known[one.name] = one
        text = tomli_w.dumps({"operator": [asdict(known) for known in self.all()]})
        write_atomically(self._path, text.encode())
        return one


def compose(
    federation: str, operator: str, private: Path, at: datetime | None = None, **what: list[Any]
) -> dict[str, Any]:
    """Return a signed order; ``what`` as :func:`experiments.runs.admission.compose` takes it.

    Raises
    ------
    RequestError
        If it names nothing that can be forgotten.
    """
    chosen = {name: list(what.get(name) or ()) for name in _WHAT}
    if mask := [word for word in chosen["features"] if names_file(str(word))]:
        raise RequestError(
            f"feature {mask[0]!r} is a file of this machine, and the server reads the order; give "
            "names, positions or regions"
        )
    # What names mean the server knows.
    request_of(**{**_tuples(chosen), "features": (0,) if chosen["features"] else ()})
    body = {
        "tag": TAG,
        "federation": federation,
        "operator": operator,
        "what": chosen,
        "nonce": secrets.token_hex(16),
        "time": (at or datetime.now(UTC)).isoformat(timespec="seconds"),
    }
    return {"body": body, "signature": keys.sign(private, body)}


def is_order(text: str) -> bool:
    """Return whether a signed file is an operator's, not a site's."""
    try:
        return bool(json.loads(text)["body"]["tag"] == TAG)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def parse(text: str) -> Order:
    """Return the order that a text holds.

    Raises
    ------
    RequestError
        If it holds none.
    """
    try:
        found = json.loads(text)
        body, what = found["body"], found["body"]["what"]
        good = (
            body.keys() == _FIELDS
            and body["tag"] == TAG
            and isinstance(found["signature"], str)
            and all(isinstance(body[name], str) for name in _FIELDS - {"what"})
            and what.keys() == set(_WHAT)
            and all(_whole(i) for name in ("clients", "classes") for i in what[name])
            and all(_whole(i) or _is_word(i) for i in what["features"])
            and all(isinstance(name, str) for name in what["tasks"])
            and all(_whole(i) for chosen in what["samples"] for i in chosen)
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"this is no operator's order ({type(error).__name__})") from error
    if not good:
        raise RequestError(
            "this is no operator's order; make one with `fedunlearn federation operator sign`"
        )
    return {"body": body, "signature": found["signature"]}


class Orders:
    """Judges orders and remembers each, so that none counts twice.

    Parameters
    ----------
    folder : Path
        Where they are kept, beside the sites' wishes; the log is the same.
    federation : str
        Its id.
    operators : Operators
        Whose keys count.
    """

    def __init__(self, folder: Path, federation: str, operators: Operators) -> None:
        self._folder, self._federation, self._operators = folder, federation, operators

    def take(
        self, order: Order, at: datetime | None = None, *, columns: Columns | None = None
    ) -> Request:
        """Return the request that an order means, if it is good; log it either way.

        Parameters
        ----------
        order : Order
            As :func:`parse` gives it.
        at : datetime, optional
            Now.
        columns : Columns, optional
            What the values of an example are called; without it features are positions.

        Raises
        ------
        RequestError
            Why it is refused.
        """
        body = order["body"]
        try:
            self._judge(order, at or datetime.now(UTC))
            request = request_of(
                **_tuples(body["what"]),
                columns=columns,
                asked_by=f"{body['operator']} (operator's key)",
                id=f"order-{body['nonce'][:16]}",
            )
        except RequestError as error:
            log_verdict(self._folder, body, f"refused: {error}")
            raise
        keep_once(self._kept(body), order)
        return request

    def drop(self, order: Order) -> None:
        """Let go of an order that could not be entered: it may be brought again."""
        self._kept(order["body"]).unlink(missing_ok=True)

    def _kept(self, body: Mapping[str, Any]) -> Path:
        return kept_at(self._folder, "operator", str(body["nonce"]))

    def _judge(self, order: Order, at: datetime) -> None:
        body = order["body"]
        if body["federation"] != self._federation:
            raise RequestError(
                f"the order is for federation {body['federation']!r}, this is {self._federation!r}"
            )
        operator = self._operators.named(body["operator"])
        if operator is None or not operator.active:
            raise RequestError(
                f"{body['operator']!r} is no operator of this federation; enter the key with "
                "`fedunlearn federation operator add`"
            )
        if not keys.is_signed(operator.key, order["signature"], body):
            raise RequestError(
                f"the order is not signed with the key of operator {operator.name!r}: it was "
                "changed, or somebody else made it"
            )
        check_time(body["time"], at)
        if self._kept(body).exists():
            raise replayed(body)


def _whole(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_word(value: object) -> bool:
    """Return whether a value names a feature, and no file: none of the server's is read for it."""
    return isinstance(value, str) and not names_file(value)


def _tuples(what: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked as :func:`experiments.runs.admission.compose` takes it."""
    found = {name: tuple(what[name]) for name in _WHAT}
    return {**found, "samples": tuple(tuple(chosen) for chosen in what["samples"])}
