"""The versions that a result was made with, and the code itself."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["PACKAGES", "code_digest", "versions"]

PACKAGES = ("unlearning", "clients", "strategies", "experiments")

_PACKAGES = ("fedunlearn", "flwr", "torch", "torchvision", "ray", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of this package and of those it rests on, where they are installed."""
    return dict(_versions())


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    """Look once per process: what is imported stays what it is, and the looking reads files."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_digest(*folders: Path) -> str:
    """Return the SHA-256 of every Python file of the four packages: names and contents.

    Parameters
    ----------
    *folders : Path
        Others to look at instead.
    """
    return _code_digest(folders or tuple(_folder(name) for name in PACKAGES))


@lru_cache(maxsize=8)
def _code_digest(folders: tuple[Path, ...]) -> str:
    state = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            state.update(f"{name} {len(content)}\n".encode() + content)
    return state.hexdigest()


def _folder(package: str) -> Path:
    return Path(str(import_module(package).__file__)).parent
