"""The roster of a federation: which public key is which client. Nobody's own word counts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["LEFT", "MEMBER", "REMOVED", "Member", "Members"]

MEMBER, LEFT, REMOVED = "member", "left", "removed"


@dataclass(frozen=True)
class Member:
    """One site.

    Parameters
    ----------
    client : int
        Its id: given once, never used again.
    name : str
        In words.
    key : str
        Its public key, PEM.
    state : str
        ``member``; ``left``: forgotten, its key is not let in again; ``removed``: taken out.
    rows : int
        Training examples it said it holds when it first joined; 0: it never has.
    node : str
        Its node id at Flower's SuperLink; empty: its key is not registered there yet.
    """

    client: int
    name: str
    key: str
    state: str = MEMBER
    rows: int = 0
    node: str = ""


class Members:
    """The content of ``roster.toml``; every change is written at once.

    Parameters
    ----------
    path : Path
        The file; it may not be there yet.

    Raises
    ------
    ConfigError
        If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[int, Member] = {}
        if path.exists():
            try:
                for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("site", []):
                    found = Member(**entry)
                    self._known[found.client] = found
            except (OSError, ValueError, TypeError) as error:
                raise ConfigError(f"{path} is damaged ({error}); restore a backup") from error

    def __iter__(self) -> Iterator[Member]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    @property
    def present(self) -> list[Member]:
        """Those that take part in the next run."""
        return [member for member in self if member.state == MEMBER]

    def named(self, name: str) -> Member:
        """Return the site of a name.

        Raises
        ------
        ConfigError
            If there is none.
        """
        for member in self:
            if member.name == name:
                return member
        known = ", ".join(member.name for member in self) or "none"
        raise ConfigError(f"no site is named {name!r} (known: {known})")

    def of_key(self, key: str) -> Member | None:
        """Return the site of a public key, if it is in the roster."""
        return next((member for member in self if key and member.key == key), None)

    def of_client(self, client: int) -> Member | None:
        """Return the site of a client id."""
        return self._known.get(client)

    def add(self, name: str, key: str) -> Member:
        """Enter a new site.

        Raises
        ------
        ConfigError
            If name or key are there already.
        """
        for member in self:
            if member.key == key:
                raise ConfigError(
                    f"this key is that of {member.name!r} (client {member.client}, "
                    f"{member.state}); a key is used once: make a new one with `site init`"
                )
            if member.name == name:
                raise ConfigError(f"a site {name!r} is there already; choose another name")
        made = Member(len(self._known), name, key)
        self._known[made.client] = made
        self._write()
        return made

    def change(self, client: int, **changes: Any) -> Member:
        """Note what became of a site: new values of fields of its entry."""
        before = self._known[client]
        after = replace(before, **changes)
        if after != before:
            self._known[client] = after
            self._write()
        return after

    def _write(self) -> None:
        text = tomli_w.dumps({"site": [asdict(m) for _, m in sorted(self._known.items())]})
        write_atomically(self._path, text.encode())
