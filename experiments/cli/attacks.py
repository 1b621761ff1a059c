"""The command ``fedunlearn attack``; heavy imports are inside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.answers import print_json, print_table
from experiments.cli.options import Json, numbers
from experiments.federation.quiet import quiet
from unlearning.errors import ConfigError

if TYPE_CHECKING:
    from experiments.attacks.trial import Trial

__all__ = ["Defence", "attack"]


class Defence(StrEnum):
    """Which arms of an attack are run."""

    ON = "on"
    OFF = "off"
    BOTH = "both"


def attack(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As `fedunlearn list attacks` has it, or all.")
    ],
    defence: Annotated[Defence, typer.Option(help="Which arms are run.")] = Defence.BOTH,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="One federation each.")] = "0",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write every trial to this CSV file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack the unlearning of a small federation, with the defence off and on."""
    chosen_seeds = numbers(seeds, "--seeds")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: the folder {out.parent} does not exist; make it")
    from experiments import attacks  # loads Flower: only once all options are right
    from experiments.attacks.trial import summary, write_csv

    chosen = list(attacks.attacks()) if name == "all" else [name]
    with quiet("flwr", "fedunlearn", level=logging.CRITICAL), _spinner() as tell:
        trials = [t for one in chosen for t in attacks.run(one, chosen_seeds, defence.value, tell)]
    if out is not None:
        write_csv(out, trials)
    lines = summary(trials)
    if as_json:
        print_json(lines)
    else:
        print_table(lines)


@contextmanager
def _spinner() -> Iterator[Callable[[Trial], None]]:
    """Show on standard error which trial was done last."""
    from rich.console import Console

    with Console(stderr=True).status("learning") as shown:
        yield lambda trial: shown.update(
            f"{trial.attack}, seed {trial.seed}: {trial.variant}, defence {trial.defence}"
        )
