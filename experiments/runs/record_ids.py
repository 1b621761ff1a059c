"""Records by their own ids: where each lies among its client's training samples.

The run folder keeps no id in the clear, only salted digests in ``records.json``: enough to find a
record that somebody names. What the ledger keeps is the ids that were asked for.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearning.errors import ConfigError, RequestError
from unlearning.records.files import write_atomically

__all__ = ["RecordIds"]

_DIGEST = 32  # hex digits of SHA-256 that are kept
_NONE_HERE = (
    "the data of this run have no ids: give them an array id (a column id in a .csv), or name "
    "--client and --samples"
)


@dataclass(frozen=True)
class RecordIds:
    """The ids of all clients' records, as digests.

    Parameters
    ----------
    salt : str
        Goes before every id.
    train : mapping of int to sequence of str
        Client id to the digest of the id of each of its training samples, in their order.
    held_out : frozenset of str
        Digests of records that nobody trains on.
    """

    salt: str
    train: Mapping[int, Sequence[str]]
    held_out: frozenset[str] = frozenset()

    @staticmethod
    def of(train: Mapping[int, Iterable[str]], held_out: Iterable[str] = ()) -> RecordIds:
        """Return the digests of ids in the clear.

        Examples
        --------
        >>> known = RecordIds.of({0: ["ann", "bob"], 1: ["cid", "bob"]}, ["dan"])
        >>> known.find(["bob"]), known.find(["bob"], [1])
        ({0: (1,), 1: (1,)}, {1: (1,)})
        """
        salt = secrets.token_hex(16)
        return RecordIds(
            salt,
            {client: [_digest(salt, one) for one in ids] for client, ids in train.items()},
            frozenset(_digest(salt, one) for one in held_out),
        )

    def find(
        self, records: Sequence[str], clients: Sequence[int] = ()
    ) -> dict[int, tuple[int, ...]]:
        """Return the positions of records among their clients' training samples, by client.

        An id that several samples bear names all of them.

        Parameters
        ----------
        records : sequence of str
            Ids.
        clients : sequence of int
            Look only there; empty: everywhere.

        Raises
        ------
        RequestError
            If an id is unknown there, or of a record that nobody trains on.
        """
        wanted = {_digest(self.salt, one): one for one in records}
        missing, found = dict(wanted), dict[int, list[int]]()
        for client, digests in self.train.items():
            if clients and client not in clients:
                continue
            for place, digest in enumerate(digests):
                if digest in wanted:
                    found.setdefault(client, []).append(place)
                    missing.pop(digest, None)
        for digest, record in missing.items():
            if digest in self.held_out:
                raise RequestError(
                    f"record {record!r} is held out: nobody trains on it, so there is nothing to "
                    "forget"
                )
            where = f" at client {', '.join(map(str, clients))}" if clients else ""
            raise RequestError(
                f"unknown record {record!r}: no training sample{where} has this id; ids are "
                "compared letter by letter"
            )
        return {client: tuple(places) for client, places in sorted(found.items())}

    def write(self, path: Path) -> None:
        """Write the file that :meth:`read` reads."""
        plain = {
            "salt": self.salt,
            "train": {str(client): list(digests) for client, digests in self.train.items()},
            "held_out": sorted(self.held_out),
        }
        write_atomically(path, json.dumps(plain).encode())

    @staticmethod
    def read(path: Path) -> RecordIds:
        """Return what :meth:`write` wrote.

        Raises
        ------
        RequestError
            If there is none: the data have no ids.
        ConfigError
            If the file is damaged.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            train = {int(client): list(digests) for client, digests in found["train"].items()}
            return RecordIds(str(found["salt"]), train, frozenset(found["held_out"]))
        except FileNotFoundError:
            raise RequestError(_NONE_HERE) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path} is damaged ({error}); name --client and --samples"
            ) from error


def _digest(salt: str, record: str) -> str:
    return hashlib.sha256(f"{salt}\n{record}".encode()).hexdigest()[:_DIGEST]
