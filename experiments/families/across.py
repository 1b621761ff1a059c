"""One page across runs: several finished comparisons side by side, whatever they compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.families.measures import joined
from experiments.families.page import page
from experiments.families.plan import Plan
from experiments.families.reading import read_run
from experiments.runs.folder import RunFolder
from unlearning.errors import ConfigError
from unlearning.records.files import write_atomically

__all__ = ["render_across"]

_FILE = "runs.html"


def render_across(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page about several runs and return its path.

    Runs of one config with different seeds count as one.

    Parameters
    ----------
    folders : sequence of Path
        Run folders, in the order of the page.
    out : Path or None
        The file; None: ``runs.html`` in the folder that all runs lie in, or else here.

    Raises
    ------
    ConfigError
        If a folder is no run folder, or one is named twice.
    ResultsError
        If a run has not finished or its files are damaged.
    """
    places = [RunFolder.open(folder).path.resolve() for folder in folders]
    if twice := [place for place in places if places.count(place) > 1]:
        raise ConfigError(f"{twice[0]} is named twice; name each run once")
    margin = Plan().margin
    found = [
        read_run(place, name, margin=margin)
        for place, name in zip(places, _names(places), strict=True)
    ]
    runs = joined(found)
    path = out or _home(places) / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page(runs, [], heading=_heading(len(found)), margin=margin).encode())
    return path


def _heading(number: int) -> str:
    return f"{number} run{'s' if number != 1 else ''} side by side"


def _names(places: Sequence[Path]) -> list[str]:
    """Return the folders' names; where two are equal, with the folders above until they differ."""
    depth = 1
    while True:
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
        depth += 1


def _home(places: Sequence[Path]) -> Path:
    parents = {place.parent for place in places}
    return parents.pop() if len(parents) == 1 else Path.cwd()
