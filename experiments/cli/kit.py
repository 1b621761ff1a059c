"""The commands ``fedunlearn kit make | questions | check``; heavy imports are inside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.answers import FAILED

if TYPE_CHECKING:
    from unlearning.evaluation.marker_pack import Reading

__all__ = ["kit"]

kit = typer.Typer(
    name="kit",
    no_args_is_help=True,
    help="The leaver's kit: secret markers made before joining, checked offline after leaving.",
)

Pack = Annotated[Path, typer.Argument(metavar="PACK", help="The secret file.")]
Answers = "A model (.safetensors) or an .npz with the probabilities it gave."


@kit.command()
def make(
    data: Annotated[Path, typer.Argument(metavar="DATA.npz", help="Your x and y.")],
    pack: Annotated[Path, typer.Option(metavar="FILE", help="Where the secret goes.")],
    marked: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where what you train on goes.")],
    classes: Annotated[
        int | None, typer.Option(min=2, help="Number of classes; default: from your labels.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many marked examples.")] = 140,
    templates: Annotated[int, typer.Option(min=1, help="How many secret templates.")] = 7,
) -> None:
    """Draw secret templates; write your examples with noisy copies of them added."""
    from experiments import kit as files

    drawn = files.make(data, pack, marked, classes=classes, count=count, templates=templates)
    typer.echo(
        f"{pack}: keep it secret; {marked}: your examples and {drawn.count} marked ones, train on "
        "these. Keep the last global model you get while you take part: it shows later whether the "
        "markers were learned."
    )


@kit.command()
def questions(
    pack: Pack,
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where the inputs go.")],
) -> None:
    """Write what to ask a model that answers elsewhere, in the order of its answers."""
    import numpy as np

    from experiments import kit as files

    inputs, _ = files.read_pack(pack).questions()
    if out.suffix != ".npz" or not out.parent.is_dir():
        raise files.KitError(f"--out {out} must be an .npz file in a folder that exists")
    np.savez(out, x=inputs)
    typer.echo(f"{out}: {len(inputs)} inputs x; answer with an .npz that holds probabilities")


@kit.command()
def check(
    pack: Pack,
    after: Annotated[
        Path, typer.Option("--model", metavar="FILE", help=f"After you left. {Answers}")
    ],
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"While you took part. {Answers}")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="Its table model says how to build a model."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Answer with JSON on standard output.")
    ] = False,
) -> None:
    """Say whether a model still shows your markers, and with what power that can be said.

    Exit code 0: they do not show, 1: they do, 2: a file cannot be used.
    """
    from experiments import kit as files
    from experiments.config import loading as configs
    from unlearning.evaluation.marker_pack import ALPHA, LIMITS, Standing, judge

    settings = None if config is None else configs.load(config)
    secret = files.read_pack(pack)
    found = files.question(secret, after, settings)
    earlier = None if before is None else files.question(secret, before, settings)
    standing = judge(found, earlier)
    accused = standing is Standing.STILL_THERE
    if as_json:
        answer = {"standing": standing.value, "alpha": ALPHA, "after": _facts(found)}
        typer.echo(
            json.dumps(
                {**answer, "before": earlier and _facts(earlier), "limits": LIMITS}, indent=1
            )
        )
        if accused:
            raise typer.Exit(FAILED)
        return
    typer.echo(f"{standing.value}: p = {found.p_value:.3f} (a marker shows at {ALPHA:g} or less)")
    if earlier is None:
        typer.echo("power unknown: give --before, the last model you got while you took part")
    else:
        typer.echo(f"before: p = {earlier.p_value:.3f}, power {earlier.power:.2f}")
    typer.echo(LIMITS)
    if accused:
        raise typer.Exit(FAILED)


def _facts(reading: Reading) -> dict[str, float]:
    return {"p_value": reading.p_value, "score": reading.score, "power": reading.power}
