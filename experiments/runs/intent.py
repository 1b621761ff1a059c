"""What a run folder was made to do: enough to go on with it after its process is gone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.runs.versions import code_digest
from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["AUDIT", "Intent", "fingerprint"]

AUDIT = "audit"  # beside the kinds of a run folder
_FILE = "intent.json"


def fingerprint(config: Path) -> str:
    """Return one SHA-256 of a run's config file and of the code that would go on with it."""
    state = hashlib.sha256(config.read_bytes())
    state.update(code_digest().encode())
    return state.hexdigest()


@dataclass(frozen=True)
class Intent:
    """Content of ``intent.json``.

    Parameters
    ----------
    kind : str
        ``run``, ``compare`` or ``audit``.
    names : tuple of str
        Strategies, by alias or ``module:Class``.
    seeds : tuple of int
        One federation each.
    lenient : bool
        Whether strategies that cannot serve are left out.
    asked : tuple of str
        Strategies that were asked for by name.
    command : str
        The words that made it.
    sha256 : str
        Of config and code; see :func:`fingerprint`.
    settings : mapping
        Further plain values of an audit.
    """

    kind: str
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    lenient: bool
    asked: tuple[str, ...]
    command: str
    sha256: str
    settings: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write it into a run folder."""
        write_atomically(folder / _FILE, json.dumps(asdict(self), indent=1).encode())

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Return whether a run folder has one; those of older versions have none."""
        return (folder / _FILE).is_file()

    @staticmethod
    def read(folder: Path) -> Intent:
        """Return what a run folder was made to do.

        Raises
        ------
        ConfigError
            If the folder does not tell: it was made by an older version, or is damaged.
        """
        path = folder / _FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            for name in ("names", "seeds", "asked"):
                found[name] = tuple(found[name])
            return Intent(**found)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{folder} cannot be resumed: it was made by a version that kept no {_FILE} and no "
                "moments to go on from; run its config again with another --out and ask there for "
                f"what `fedunlearn status {folder}` shows as open"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged ({error}); restore it from a backup") from error
