"""Measure the leaver's kit: ``python -m experiments.benchmarks.kit --seeds 20``.

One federation per seed on scikit-learn's digits: the leaver trains on a pack's examples beside its
data. Its pack is then checked against the model before it left, against what strategies answer to
its request, and, as the server that does nothing, against the model before once more. False alarms
are counted with packs that nobody trained on, against the retrained model.
"""

from __future__ import annotations

import csv
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from clients.steps import Shard
from experiments.attacks.stage import Stage, settings
from experiments.config.registry import make
from unlearning.arrays import Arrays
from unlearning.evaluation.marker_pack import MarkerPack, Reading, draw, judge, read
from unlearning.request import Request, Scope

__all__ = ["bench"]

_LEAVER = 3
_SALT = 10**6  # packs of different seeds must not be equal; here nobody needs a real secret
_FIELDS = ("seed", "strategy", "p_value", "score", "power", "standing", "accuracy", "check_s")
_OPTIONS: dict[str, dict[str, Any]] = {
    "retrain": {},
    "fine-tune": {},
    "fed-eraser": {"interval": 2, "interval_scale": 2.0},
    "gradient-ascent": {},
    "no-t": {"fine_tune_rounds": 0},
}


def bench(seed: int, spare: int, count: int = 140) -> Iterator[dict[str, object]]:
    """Yield the rows of one federation, then one with ``spare`` packs nobody trained on."""
    strategies = {name: make(name, options) for name, options in _OPTIONS.items()}
    needs = frozenset[str]().union(*(strategy.needs for strategy in strategies.values()))
    with Stage(settings(seed), needs) as stage:
        own = stage.holds(_LEAVER)
        x = own.features.numpy()
        pack = draw(x, stage.task.num_classes, seed=_SALT + seed, count=count)
        more_x, more_y = (torch.from_numpy(part) for part in pack.marked())
        stage.shards[_LEAVER] = Shard(
            torch.cat([own.features, more_x]), torch.cat([own.labels, more_y])
        )
        stage.learn()
        before, seconds = _ask(stage, pack, stage.model)
        yield _row(seed, "did nothing", before, before, stage.accuracy(stage.model), seconds)
        for name, strategy in strategies.items():
            request = Request(Scope.CLIENT, clients=(_LEAVER,))
            arrays = stage.answer(strategy, request).arrays
            after, seconds = _ask(stage, pack, arrays)
            yield _row(seed, name, after, before, stage.accuracy(arrays), seconds)
            if name == "retrain":
                clean = arrays
        for number in range(spare):
            other = draw(x, stage.task.num_classes, seed=_SALT * (number + 2) + seed, count=count)
            found, seconds = _ask(stage, other, clean)
            yield _row(seed, "spare", found, before, None, seconds)


def _ask(stage: Stage, pack: MarkerPack, arrays: Arrays) -> tuple[Reading, float]:
    begun = time.perf_counter()
    inputs, _ = pack.questions()
    return read(pack, stage.task.predict(arrays, inputs)), time.perf_counter() - begun


def _row(
    seed: int,
    strategy: str,
    after: Reading,
    before: Reading,
    accuracy: float | None,
    seconds: float,
) -> dict[str, object]:
    standing = judge(after, before).value
    found = (after.p_value, round(after.score, 4), after.power, standing)
    shown = "" if accuracy is None else round(accuracy, 4)
    return dict(zip(_FIELDS, (seed, strategy, *found, shown, round(seconds, 3)), strict=True))


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Federations.")] = 20,
    spare: Annotated[int, typer.Option(min=0, help="Packs per seed that nobody trained on.")] = 50,
    count: Annotated[int, typer.Option(min=7, help="Marked examples.")] = 140,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a CSV.")] = None,
) -> None:
    """Check packs against federations that forget, and against one that does nothing."""
    logging.getLogger("flwr").setLevel(logging.ERROR)  # it tells of every round
    rows = [row for seed in range(seeds) for row in _told(seed, spare, count)]
    if out is not None:
        with out.open("w", newline="") as file:
            writer = csv.DictWriter(file, _FIELDS)
            writer.writeheader()
            writer.writerows(rows)
    for strategy in dict.fromkeys(str(row["strategy"]) for row in rows):
        of = [row for row in rows if row["strategy"] == strategy]
        shows = sum(row["standing"] == "still there" for row in of)
        slowest = max(float(str(row["check_s"])) for row in of)
        typer.echo(
            f"{strategy}: still there in {shows} of {len(of)}; slowest check {slowest:.2f} s"
        )


def _told(seed: int, spare: int, count: int) -> list[dict[str, object]]:
    rows = list(bench(seed, spare, count))
    sys.stderr.write(f"seed {seed} done\n")
    return rows


if __name__ == "__main__":
    typer.run(main)
