"""What a client remembers on its own disk between messages: tombstones, and what training left.

Tombstones name what the client has deleted and must never train on again; they survive a restart.
Its last local model, and whatever else it made of its data, is kept only when a strategy needs it
and is deleted with the data.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from unlearning.arrays import Arrays
from unlearning.errors import HistoryError
from unlearning.packing import PackingError, metadata, pack, unpack
from unlearning.records.files import write_atomically
from unlearning.request import Omission

__all__ = ["ClientMemory"]

_NOTHING = Omission()


class ClientMemory:
    """Files of one client below ``home``.

    Parameters
    ----------
    home : Path or None
        Folder for all clients of one federation; None: nothing is remembered.
    client : int
        Stable client id.
    """

    def __init__(self, home: Path | None, client: int) -> None:
        self._folder = None if home is None else home / f"client-{client:05d}"
        self._buried = None if self._folder is None else str(self._folder / "tombstones.json")
        # Every writer replaces the file by another, and tombstones only grow.
        self._read: tuple[tuple[int, ...], Omission] = (), _NOTHING

    @property
    def tombstones(self) -> Omission:
        """What this client has deleted for good."""
        if self._buried is None:
            return _NOTHING
        try:
            if (stamp := _stamp(os.stat(self._buried))) == self._read[0]:  # asked at every message
                return self._read[1]
            with open(self._buried, "rb") as file:
                stamp, found = _stamp(os.fstat(file.fileno())), _omission(file.read())
            self._read = stamp, found
            return found
        except FileNotFoundError:
            return _NOTHING
        except (ValueError, AttributeError) as error:
            raise HistoryError(
                f"tombstones {self._buried} cannot be read ({error}); restore the file from a "
                "backup: without it deleted data could be trained on again"
            ) from error

    @property
    def has_salt(self) -> bool:
        """Whether the secret of :attr:`salt` is there."""
        path = self._path("salt")
        return path is not None and path.exists()

    @property
    def salt(self) -> bytes:
        """The secret that this client's samples are hashed with, 32 bytes; drawn when first asked.

        It goes when the whole client is forgotten.

        Raises
        ------
        HistoryError
            If the client has no folder to keep it in.
        """
        path = self._path("salt")
        if path is None:
            raise HistoryError(
                "client cannot commit itself to its samples: no folder was given for its salt; set "
                "'home' in the node config"
            )
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, secrets.token_bytes(32))
        return path.read_bytes()

    def bury(self, omission: Omission) -> None:
        """Add to the tombstones, durably, and delete everything derived from training.

        Where tasks alone are forgotten, what is kept per task (``...-<task>``) of other tasks
        stays.
        """
        if self._folder is None:
            return
        total = (self.tombstones | omission).to_json()
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / "tombstones.json", json.dumps(total).encode())
        if omission.everything:
            (self._folder / "salt").unlink(missing_ok=True)
        tasks_alone = bool(omission.tasks) and omission == Omission(tasks=omission.tasks)
        for derived in self._folder.glob("*.safetensors"):
            _, per_task, task = derived.stem.partition("-")
            if not (tasks_alone and per_task and task not in omission.tasks):
                derived.unlink()

    def remember(self, name: str, arrays: Arrays, facts: Mapping[str, int]) -> None:
        """Keep named arrays under ``name``, with a few integers beside them.

        Raises
        ------
        HistoryError
            If the client has no folder to keep them in.
        """
        path = self._path(f"{name}.safetensors")
        if path is None:
            raise HistoryError(
                f"client cannot keep {name!r}: no folder was given; set 'home' in the node config"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = {key: str(value) for key, value in facts.items()}
        write_atomically(path, pack(arrays, {"facts": json.dumps(texts)}), durable=False)

    def recall(self, name: str) -> tuple[Arrays, dict[str, int]] | None:
        """Return what :meth:`remember` kept, or None if there is nothing (or it is damaged)."""
        path = self._path(f"{name}.safetensors")
        if path is None or not path.exists():
            return None
        raw = path.read_bytes()
        try:
            arrays = unpack(raw)
            facts = json.loads(metadata(raw)["facts"])
        except (PackingError, KeyError, ValueError):
            return None
        return arrays, {key: int(value) for key, value in facts.items()}

    def _path(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    """Return what is another for any file that takes the place of one."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=1024)
def _omission(data: bytes) -> Omission:
    """Return an omission of its bytes: a client's are the same from one deletion to the next."""
    return Omission.from_json(json.loads(data))
