"""Data keys for a history at rest: each in a file of its own, wrapped by a master key.

A client has one key for its updates and contributions, every other file one of its own. The keys
lie in a folder that is not the history's, so that a backup of the history holds none: a key that is
destroyed takes every copy of what it locked with it. What a file system, a disk or a backup of the
key folder keeps of a removed key file is still locked by the master key, and no more than that.

References
----------
Dworkin, "Recommendation for Block Cipher Modes of Operation: Galois/Counter Mode (GCM) and GMAC",
NIST SP 800-38D, 2007.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from unlearning.errors import HistoryError
from unlearning.packing import Piece
from unlearning.records.files import room, write_atomically

__all__ = ["Keys", "Ring", "key_id_of"]

_MAGIC = b"fedunl-1"
_ID, _NONCE = 16, 12  # bytes
_HEAD = len(_MAGIC) + _ID + _NONCE
_LENGTH = 32  # bytes of a key: AES-256


@dataclass(frozen=True, repr=False)
class Keys:
    """Where rings of keys are kept, and what wraps them.

    Parameters
    ----------
    folder : Path
        Made if missing.
    master : bytes
        32 bytes.
    """

    folder: Path
    master: bytes

    def __post_init__(self) -> None:
        if len(self.master) != _LENGTH:
            raise HistoryError(f"a master key has {_LENGTH} bytes, this one {len(self.master)}")

    def ring(self, name: str) -> Ring:
        """Return the ring of one history."""
        return Ring(self.folder / name, self.master)


def key_id_of(data: Piece) -> str | None:
    """Return which key locked some bytes; None: they are not locked."""
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _HEAD:
        return None
    return data[len(_MAGIC) : len(_MAGIC) + _ID].hex()


class Ring:
    """The keys of one history.

    Parameters
    ----------
    folder : Path
        Where they lie, one file each; made with the first.
    master : bytes
        Wraps them.
    """

    def __init__(self, folder: Path, master: bytes) -> None:
        self._folder, self._secret, self._master = folder, master, AESGCM(master)
        self._known: dict[str, AESGCM] = {}
        self._of_owner: dict[str, str] = {}

    def beside(self, name: str) -> Ring:
        """Return a ring of its own that goes when this one goes as a whole."""
        return Ring(self._folder / name, self._secret)

    def check(self) -> None:
        """Refuse to go on with keys that are not those of a history in which something is locked.

        Raises
        ------
        HistoryError
            If no key is there, or the master key opens none.
        """
        names = sorted(self.names())
        if not names:
            raise HistoryError(
                f"{self._folder} holds no key of this history: set history.keys to the folder "
                "where they lie, or put them back from a backup; nothing was changed"
            )
        for name in names:
            try:
                self._read(name)
            except HistoryError as error:
                reason = error
            else:
                return
        raise HistoryError(f"{reason}; nothing was changed")

    def lock(self, data: bytes, owner: str | None, about: str) -> bytes:
        """Return bytes locked by the key of an owner; None: by a key of their own.

        ``about`` is bound to them: they open as that and as nothing else.

        Raises
        ------
        HistoryError
            If a new key cannot be written.
        """
        name = self._key_of(owner)
        nonce = os.urandom(_NONCE)
        head = _MAGIC + bytes.fromhex(name)
        return head + nonce + self._read(name).encrypt(nonce, data, head + about.encode())

    def unlock(self, data: bytes, about: str) -> bytes:
        """Return what :meth:`lock` locked.

        Raises
        ------
        HistoryError
            If the key was destroyed, the master key is another one, or the bytes are others.
        """
        name = key_id_of(data)
        if name is None:
            return data
        head, nonce = data[: len(_MAGIC) + _ID], data[len(_MAGIC) + _ID : _HEAD]
        try:
            return self._read(name).decrypt(nonce, data[_HEAD:], head + about.encode())
        except InvalidTag as error:
            raise HistoryError(f"what is locked as {about} is not what its key locked") from error

    def destroy(self, names: Iterable[str]) -> None:
        """Remove keys for good; one that is not there is no fault.

        Raises
        ------
        HistoryError
            If one cannot be removed.
        """
        gone = set(names)
        self._of_owner = {owner: name for owner, name in self._of_owner.items() if name not in gone}
        try:
            for name in gone:
                self._known.pop(name, None)
                for path in self._folder.glob(f"*-{name}.key"):
                    _shred(path)
            _flush(self._folder)
        except OSError as error:
            raise HistoryError(
                f"cannot destroy a key in {self._folder}: {error.strerror}; remove the cause and "
                "open the history again, which destroys it"
            ) from error

    def destroy_all(self) -> None:
        """Remove every key."""
        self.destroy(self.names())
        shutil.rmtree(self._folder, ignore_errors=True)

    def names(self) -> set[str]:
        """Return the keys there are."""
        return {path.stem.rpartition("-")[2] for path in self._folder.glob("*-*.key")}

    def _key_of(self, owner: str | None) -> str:
        if owner is None:
            return self._make("file")
        if owner not in self._of_owner:
            found = sorted(self._folder.glob(f"{owner}-*.key"))
            known = found[0].stem.rpartition("-")[2] if found else self._make(owner)
            self._of_owner[owner] = known
        return self._of_owner[owner]

    def _make(self, owner: str) -> str:
        name, key, nonce = os.urandom(_ID).hex(), os.urandom(_LENGTH), os.urandom(_NONCE)
        path = self._folder / f"{owner}-{name}.key"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, nonce + self._master.encrypt(nonce, key, path.stem.encode()))
        except OSError as error:
            raise HistoryError(
                f"cannot write a key to {self._folder}: {error.strerror}{room(self._folder)}; make "
                "room there, make it writable, or name another folder in history.keys"
            ) from error
        self._known[name] = AESGCM(key)
        return name

    def _read(self, name: str) -> AESGCM:
        if name not in self._known:
            found = list(self._folder.glob(f"*-{name}.key"))
            if not found:
                raise HistoryError(
                    f"its key is not in {self._folder}: it was destroyed with what it locked, or "
                    "history.keys names another folder"
                )
            try:
                wrapped = found[0].read_bytes()
                about = found[0].stem.encode()
                key = self._master.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], about)
            except (OSError, InvalidTag, ValueError) as error:
                raise HistoryError(
                    f"{found[0]} cannot be opened: it is damaged, or the master key is another one"
                ) from error
            self._known[name] = AESGCM(key)
        return self._known[name]


def _shred(path: Path) -> None:
    """Overwrite a key file, then remove it."""
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _flush(folder: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
