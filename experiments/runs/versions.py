"""The versions that a result was made with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["versions"]

_PACKAGES = ("fedunlearn", "flwr", "torch", "torchvision", "ray", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Return the versions of this package and of those it rests on, where they are installed."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
