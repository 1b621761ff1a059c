"""``fedunlearn doctor``: is everything there that a run needs, and what to do about what is not."""

from __future__ import annotations

import importlib.util
import locale
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

__all__ = ["Check", "examine"]

NAMES = ("clients", "experiments", "fedunlearn", "strategies", "unlearning")
_LEAST_PYTHON = (3, 11)
_LEAST_DISK = 2 << 30  # bytes; a run's history and Ray's spill
_LEAST_SHARED = 1 << 30  # bytes of shared memory, where Ray keeps its objects


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    name, found : str
        What, and how it is.
    state : "good", "odd" or "bad"
        ``odd`` works with a limit; ``bad`` does not work.
    remedy : str
        What to do; empty where all is well.
    """

    name: str
    found: str
    state: Literal["good", "odd", "bad"] = "good"
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        """Return plain values."""
        return asdict(self)

    def line(self) -> str:
        """Return it in words."""
        mark = {"good": "ok ", "odd": "?  ", "bad": "NO "}[self.state]
        return f"{mark} {self.name}: {self.found}{f'; {self.remedy}' if self.remedy else ''}"


def examine(*, start_ray: bool = True) -> list[Check]:
    """Return what was looked at, in the order in which it should be put right.

    Parameters
    ----------
    start_ray : bool
        Whether to start Ray and end it again, which takes about ten seconds.
    """
    checks: list[Callable[[], Check]] = [
        _python,
        _packages,
        _names,
        _flower,
        _gpu,
        lambda: _ray(start_ray),
        _disk,
        _shared_memory,
        _locale,
    ]
    return [check() for check in checks]


def places(name: str, path: list[str] | None = None) -> list[Path]:
    """Return every place on the import path that offers a module, the one that wins first."""
    found: dict[Path, None] = {}
    for entry in sys.path if path is None else path:
        folder = Path(entry or os.getcwd())
        if any((folder / name).glob("*.py")):
            found.setdefault((folder / name).resolve())
        if (folder / f"{name}.py").is_file():
            found.setdefault((folder / f"{name}.py").resolve())
    return list(found)


def _python() -> Check:
    told = sys.version.split()[0]
    if sys.version_info < _LEAST_PYTHON:
        return Check("Python", told, "bad", "install 3.11 or newer")
    return Check("Python", f"{told} ({sys.executable})")


def _packages() -> Check:
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in requires("fedunlearn") or ()]
    except PackageNotFoundError:
        return Check(
            "packages",
            "fedunlearn is not installed",
            "odd",
            "pip install it, or keep to its folder",
        )
    # Those of extras are left out: they are not needed.
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong: list[str] = []
    for one in wanted:
        try:
            there = version(one.name)
        except PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(there, prereleases=True):
            wrong.append(f"{one.name} {there} is outside {one.specifier}")
    if wrong:
        return Check("packages", "; ".join(wrong), "bad", "pip install --upgrade fedunlearn")
    return Check("packages", f"all {len(wanted)} requirements are met")


def _names() -> Check:
    """Look for others that took the plain names of the packages."""
    here = Path(__file__).resolve().parents[1]
    known = {name: places(name) for name in NAMES}
    for name, found in known.items():  # what hides ours is told before what ours hides
        if found and found[0].resolve().parent != here:
            return Check(
                "names",
                f"{found[0]} hides this package's {name}",
                "bad",
                "start from another folder, or rename or uninstall it",
            )
    for name, found in known.items():
        if strange := [place for place in found if place.resolve().parent != here]:
            return Check(
                "names",
                f"{strange[0]} is called {name}, too, and is hidden by this package's",
                "odd",
                "rename it if you meant to import it",
            )
    return Check("names", f"{', '.join(NAMES)} are this package's own")


def _flower() -> Check:
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")
    nearest = next(path for path in (home, *home.parents) if path.exists())
    told = f"{version('flwr')}, home {home}"
    if not os.access(nearest, os.W_OK):
        return Check("Flower", told, "bad", f"{nearest} cannot be written; set FLWR_HOME")
    return Check("Flower", told)


def _gpu() -> Check:
    import torch

    told = f"PyTorch {torch.__version__}"
    if not torch.cuda.is_available():
        return Check("GPU", f"{told}, no GPU that it can use; runs work on the CPU")
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return Check("GPU", f"{told}, {torch.cuda.device_count()} x {', '.join(sorted(names))}")


def _ray(start: bool) -> Check:
    if importlib.util.find_spec("ray") is None:
        return Check(
            "Ray", "missing", "bad", 'pip install "flwr[simulation]", or set engine.grid = "local"'
        )
    told = version("ray")
    if not start:
        return Check("Ray", f"{told}, not started")
    from experiments.federation.cluster import why_not

    why = why_not()
    if why is not None:
        return Check("Ray", f"{told}, {why}", "bad", 'set engine.grid = "local" to do without')
    return Check("Ray", f"{told}, starts")


def _disk() -> Check:
    free = {Path.cwd(): 0, Path(tempfile.gettempdir()): 0}
    free = {path: shutil.disk_usage(path).free for path in free}
    least = min(free, key=lambda path: free[path])
    told = ", ".join(f"{size / 2**30:.1f} GiB free in {path}" for path, size in free.items())
    if not os.access(Path.cwd(), os.W_OK):
        return Check("disk", told, "bad", f"{Path.cwd()} cannot be written; start elsewhere")
    if free[least] < _LEAST_DISK:
        return Check("disk", told, "odd", f"make room in {least}: fedunlearn clean")
    return Check("disk", told)


def _shared_memory() -> Check:
    shared = Path("/dev/shm")
    if not shared.is_dir():
        return Check("shared memory", "none to look at here")
    size = shutil.disk_usage(shared).total
    told = f"{size / 2**30:.1f} GiB"
    if size < _LEAST_SHARED:
        return Check(
            "shared memory",
            told,
            "odd",
            "Ray falls back to slow files; in a container give --shm-size=2g",
        )
    return Check("shared memory", told)


def _locale() -> Check:
    encoding = locale.getpreferredencoding(False)
    if encoding.replace("-", "").lower() != "utf8":
        return Check("locale", encoding, "odd", "set LANG=C.UTF-8, or names may look wrong")
    return Check("locale", encoding)
