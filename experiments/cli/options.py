"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unlearning.errors import ConfigError

__all__ = ["ConfigFile", "Json", "Out", "Overrides", "Run", "numbers", "words"]

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
Json = Annotated[bool, typer.Option("--json", help="Answer with JSON on standard output.")]


def words(text: str, option: str) -> tuple[str, ...]:
    """Return the names in ``A,B``.

    Raises
    ------
    ConfigError
        If there is none.
    """
    found = tuple(word for part in text.split(",") if (word := part.strip()))
    if not found:
        raise ConfigError(f"{option} is {text!r}; give names separated by commas")
    return found


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Return the whole numbers in ``0,1,2``.

    Raises
    ------
    ConfigError
        If there is none, or something else.
    """
    found = words(text, option)
    if odd := [word for word in found if not word.isdecimal()]:
        raise ConfigError(
            f"{option} is {text!r}, and {odd[0]!r} is no whole number; "
            "give numbers separated by commas, for example 4,8,15"
        )
    return tuple(int(word) for word in found)
