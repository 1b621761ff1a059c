"""Where the keys of encrypted histories lie: outside the run folder, so no backup of it has one.

The master key is ``FEDUNLEARN_KEY`` (32 bytes in hex), or a file that only its owner may read, made
with the first run that encrypts.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from experiments.config.loading import Config
from experiments.runs.folder import RunFolder
from unlearning.errors import ConfigError
from unlearning.records.files import room
from unlearning.records.ring import Keys

__all__ = ["keys_of"]

_VARIABLE = "FEDUNLEARN_KEY"
_BYTES = 32


def keys_of(config: Config, folder: RunFolder | None) -> Keys | None:
    """Return what encrypts the history of a run; None: nothing does.

    Raises
    ------
    ConfigError
        If the keys would lie in the run folder, or the master key cannot be had.
    """
    if folder is None or not config.history.encrypt:
        return None
    place = config.history.keys
    keys = Path(place).expanduser() if place else platformdirs.user_data_path("fedunlearn") / "keys"
    keys, run = keys.resolve(), folder.path.resolve()
    if keys == run or run in keys.parents:
        raise ConfigError(
            f"history.keys = {str(keys)!r} lies in the run folder {run}: a backup of it would hold "
            "the keys; name another folder"
        )
    text = os.environ.get(_VARIABLE)
    if text:
        return Keys(keys, _parsed(text, f"the environment's {_VARIABLE}"))
    return Keys(keys, _of_file(keys / "master.key"))


def _of_file(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                raise ConfigError(
                    f"others may read the master key {path}; make it yours alone: chmod 600 {path}"
                ) from None
            return _parsed(path.read_text(encoding="ascii", errors="replace"), str(path))
        with os.fdopen(descriptor, "w") as file:
            key = os.urandom(_BYTES)
            file.write(key.hex())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(
            f"the master key {path} cannot be read or made: {error.strerror}{room(path)}; name "
            f"another folder in history.keys, or set {_VARIABLE}"
        ) from error
    return key


def _parsed(text: str, place: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise ConfigError(f"{place} is no master key; expected {_BYTES} bytes as {2 * _BYTES} hex")
    return key
