"""Where traces are kept: by the hash of everything that a model is made from.

A change of config, options, code, data or libraries gives another address, so that nothing stale
is ever read. Files appear whole or not at all, and the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from experiments.audit.traces import Trace
from experiments.config.loading import Config
from experiments.data import datasets as data
from experiments.models import networks as models
from experiments.runs.versions import PACKAGES, code_digest
from unlearning.records.files import write_atomically

__all__ = [
    "PACKAGES",
    "TraceStore",
    "address",
    "code_digest",
    "data_digest",
    "file_digest",
    "foundation",
    "source_digest",
]

_LIBRARIES = ("flwr", "numpy", "scikit-learn", "scipy", "torch")
# What names or schedules work, and changes no model; a strategy's options go into its own address.
_ELSEWHERE = {"seed", "strategy", "strategies", "options", "engine"}
_ENGINE = {"timeout_s", "min_replies"}  # a federation may fail of these


def address(parts: Mapping[str, object]) -> str:
    """Return the SHA-256 of plain values, in hexadecimal; the order of keys does not matter."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def foundation(config: Config) -> dict[str, Any]:
    """Return what all models of an audit have in common, as plain values.

    Parameters
    ----------
    config : Config
        Its data must have been loaded once, or can be.
    """
    engine = config.engine.model_dump(mode="json", include=_ENGINE)
    is_own = ":" in config.model.name
    return {
        "config": {**config.model_dump(mode="json", exclude=_ELSEWHERE), "engine": engine},
        "code": code_digest(),
        "data": data_digest(config),
        "model": source_digest(config.model.name.partition(":")[0]) if is_own else "",
        "trunk": file_digest(config.model.trunk.file) if config.model.trunk else "",
        "libraries": _libraries(),
        "device": models.device(config.device).type,
    }


def file_digest(path: str | None) -> str:
    """Return the SHA-256 of a file that the config names; empty without one, or if it is missing.

    That it is missing is said where it is read.
    """
    if path is None or not Path(path).is_file():
        return ""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def source_digest(module: str) -> str:
    """Return the SHA-256 of a module of the user's own; empty for one of the four packages."""
    if module.partition(".")[0] in PACKAGES:
        return ""
    found = import_module(module).__file__
    return hashlib.sha256(Path(found).read_bytes()).hexdigest() if found else ""


def data_digest(config: Config) -> str:
    """Return the SHA-256 of the data set's arrays: names, types, shapes and contents."""
    chosen = config.data
    found = data.of(chosen)
    state = hashlib.sha256()
    for name, value in sorted(vars(found).items()):
        if isinstance(value, np.ndarray):
            state.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            state.update(np.ascontiguousarray(value).data)
        elif name != "name":  # that is in the config
            state.update(f"{name} {value!r}\n".encode())
    return state.hexdigest()


def _libraries() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


class TraceStore:
    """A folder of traces.

    Parameters
    ----------
    root : Path or None
        Default: ``audit`` in the cache folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = data.cache_folder() / "audit" if root is None else root

    def path(self, key: str) -> Path:
        """Return where the trace of an address lies."""
        return self.root / key[:2] / f"{key}.npz"

    def get(self, key: str) -> Trace | None:
        """Return a trace, or None if it is not there or damaged."""
        try:
            return Trace.from_bytes(self.path(key).read_bytes())
        except (OSError, ValueError):
            return None

    def put(self, key: str, trace: Trace, seconds: Mapping[str, float]) -> None:
        """Keep a trace, and beside it the seconds that each phase took on this machine.

        Of several processes that put the same at once the last wins; the bytes are the same.
        """
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(seconds), sort_keys=True, allow_nan=False)
        write_atomically(path.with_suffix(".json"), text.encode(), durable=False)
        # The trace comes last: where it is, everything is.
        write_atomically(path, trace.to_bytes(), durable=False)

    def seconds(self, key: str) -> dict[str, float]:
        """Return what :meth:`put` was told; empty if that is lost."""
        try:
            found = json.loads(self.path(key).with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            return {}
        return {str(name): float(value) for name, value in found.items()}
