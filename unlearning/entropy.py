"""Noise that nobody but the server can compute, and the file that may hold its key.

A certificate promises that noise hides something. Noise drawn from the seed of a scenario hides
nothing: the seed travels in every message. The key of certified noise is 256 bits of the operating
system's entropy, drawn when it is needed and held by the server's process alone. A key that was
given, for a test, makes the same noise again; what is released with it is not certified.

Normal values come from SHAKE-256 in counter mode through the Box-Muller transform, in float64.
Finite precision is outside every proof.

References
----------
NIST, "SHA-3 Standard", FIPS 202, 2015, for SHAKE-256.
Box, Muller, "A Note on the Generation of Random Normal Deviates", Annals of Mathematical
Statistics 29(2), 1958.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearning.errors import HistoryError

__all__ = ["Noise", "Vault"]

_BYTES = 32  # of a key: 256 bits
_VALUES = 1 << 16  # normal values per block of the stream


class Noise:
    """A stream of independent standard normal values.

    Parameters
    ----------
    key : bytes or None, default None
        None: fresh entropy of the operating system, which no one else ever sees.
    address : str, default ""
        What the noise is for; one key makes another stream for each.
    """

    def __init__(self, key: bytes | None = None, address: str = "") -> None:
        secret = secrets.token_bytes(_BYTES) if key is None else key
        self._prefix = hashlib.sha256(secret).digest() + address.encode()
        self._block = 0
        self._left: NDArray[np.float64] = np.empty(0)

    def __repr__(self) -> str:
        """Return nothing that could tell the key."""
        return "<Noise>"

    def standard_normal(self, size: int) -> NDArray[np.float64]:
        """Return the next ``size`` values, float64."""
        blocks, there = [self._left], len(self._left)
        while there < size:
            blocks.append(self._next())
            there += _VALUES
        whole = np.concatenate(blocks)
        self._left = whole[size:]
        return whole[:size]

    def _next(self) -> NDArray[np.float64]:
        counter = self._block.to_bytes(8, "big")
        self._block += 1
        stream = hashlib.shake_256(counter + self._prefix).digest(8 * _VALUES)
        # 53 bits each; the first of a pair is never 0, whose logarithm is none.
        uniform = (np.frombuffer(stream, "<u8") >> np.uint64(11)).astype(np.float64)
        first, second = (uniform[::2] + 1) * 2.0**-53, uniform[1::2] * 2.0**-53
        length, angle = np.sqrt(-2 * np.log(first)), 2 * math.pi * second
        return np.concatenate([length * np.cos(angle), length * np.sin(angle)])


class Vault:
    """A key that must outlive the process, in a file that its owner alone can read.

    Keep it outside the folder of the run: whoever is handed that must not get the key with it.

    Parameters
    ----------
    path : Path or None, default None
        The file, its folder made if missing; None: in memory, gone with the process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._held: dict[int, bytes] = {}

    def key(self, epoch: int) -> bytes:
        """Return the key of an epoch, drawn when it is first asked for.

        Raises
        ------
        HistoryError
            If the file cannot be read or written.
        """
        if epoch not in self._held:
            self._held = self._read() | self._held
        if epoch not in self._held:
            self._held[epoch] = secrets.token_bytes(_BYTES)
            self._write()
        return self._held[epoch]

    def twin(self) -> Vault:
        """Return a vault with the same keys, for a branch that may destroy its own."""
        other = Vault(self._path)
        other._held = dict(self._held)
        return other

    def destroy(self, before: int) -> None:
        """Forget the keys of all epochs before one, in the file too."""
        self._held = {e: key for e, key in (self._read() | self._held).items() if e >= before}
        self._write()

    def __repr__(self) -> str:
        """Return nothing that could tell a key."""
        return "<Vault>"

    def _read(self) -> dict[int, bytes]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            found = json.loads(self._path.read_text())
            return {int(epoch): bytes.fromhex(key) for epoch, key in found.items()}
        except (OSError, ValueError, AttributeError) as error:
            raise HistoryError(
                f"the key of the noise in {self._path} cannot be read ({error}); restore the file, "
                "or learn anew with new noise"
            ) from error

    def _write(self) -> None:
        path = self._path
        if path is None:
            return
        text = json.dumps({str(epoch): key.hex() for epoch, key in self._held.items()})
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():  # what a file system keeps of an old file must not be the old key
                with path.open("r+b") as old:
                    old.write(b"\0" * path.stat().st_size)
                    old.flush()
                    os.fsync(old.fileno())
            fresh.replace(path)
        except OSError as error:
            raise HistoryError(
                f"the key of the noise cannot be written to {path}: {error.strerror}; make its "
                "folder writable"
            ) from error
