"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearning.errors import ConfigError

__all__ = [
    "Anyway",
    "ConfigFile",
    "Json",
    "Out",
    "Overrides",
    "Run",
    "feature_help",
    "numbers",
    "seconds",
    "words",
]

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The TOML file.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="RUN", help="The run folder to make; default: runs/CONFIG-TIME."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key; may be repeated."),
]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="Begin though the disk seems too small for the history.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


def feature_help(whose: str, *, mask: bool = True) -> str:
    """Return what ``--feature`` takes, and whose values it means; ``mask``: also out of a file."""
    ways = ["a column's name", "a position", "a region such as 0:2x3:8"]
    ways += ["a mask in a file .npy"] if mask else []
    return f"A value of {whose}; repeatable: {', '.join(ways[:-1])} or {ways[-1]}."


def words(text: str, option: str) -> tuple[str, ...]:
    """Return the names in ``A,B``.

    Raises
    ------
    ConfigError
        If there is none, one is empty, or one is there twice.
    """
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        empty = "" if not any(found) else "; nothing stands before or after one of the commas"
        raise ConfigError(f"{option} is {text!r}{empty}; give names separated by commas")
    if doubles := [word for word in dict.fromkeys(found) if found.count(word) > 1]:
        raise ConfigError(f"{option} is {text!r} and names {doubles[0]!r} twice; name each once")
    return found


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Return the whole numbers in ``0,1,2``.

    Raises
    ------
    ConfigError
        If there is none, something else, a negative one, or one is there twice.
    """
    found = words(text, option)
    example = "give numbers from 0 separated by commas, for example 4,8,15"
    for word in found:
        if word.removeprefix("-").isdecimal() and word.startswith("-"):
            raise ConfigError(f"{option} is {text!r}, and {word} is negative; {example}")
        if not (word.isascii() and word.isdecimal()):
            raise ConfigError(f"{option} is {text!r}, and {word!r} is no whole number; {example}")
    return tuple(int(word) for word in found)


def seconds(text: str, option: str) -> float:
    """Return the seconds in ``90``, ``30s``, ``10m`` or ``1h``.

    Raises
    ------
    ConfigError
        If it is no length of time.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        found = float(number) * unit
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ConfigError(f"{option} is {text!r}; give a length of time, for example 30s, 10m, 1h")
    return found
