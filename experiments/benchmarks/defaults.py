"""How far strategies come with the defaults that they are shipped with, in 24 settings.

``python -m experiments.benchmarks.defaults [--root data] [--seeds 0] [--data digits,mnist]
[--cifar FILE.npz] [--strategies fed-osd,no-t,fed-recover] [--variant "NAME:STRATEGY:KEY=VALUE ..."]
[--elsewhere] [--out FILE]`` learns digits, MNIST,
Adult and CIFAR-10 with small networks and small parts of the data, shared out evenly, by Dirichlet
.3 and two classes a client, with one and with four local epochs. In each, client 3 has a backdoor
and leaves. A setting's rows are written when it is done, and are not made again; the table of all
is printed at the end.

Controls: plain training for as many rounds and at the rate of ``no-t`` (``plain, no-t's``), with a
random reset of as many weights as ``no-t`` negates before it (``random reset``), and plain training
at training's rate for what ``fed-recover``, the dearest of the three, costs (``plain``).

Defaults are chosen with ``--elsewhere``, on other seeds and another client than those reported;
``--variant``, which may be repeated, tries a strategy with other options beside its defaults.
``--strategies all`` tries every strategy there is, and prints a row for each.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.rows import RESULTS
from experiments.config.loading import Config, from_mapping
from experiments.config.registry import make
from experiments.federation.course import ALL
from experiments.federation.task import Scenario, task
from experiments.runs.results import ORIGINAL, RETRAIN
from experiments.tuning.trials import Measured, Try, elsewhere, measure
from strategies.local_model.no_t import NoT, layers_to_negate
from strategies.registry import strategies
from strategies.shares import rounds_of
from unlearning import arrays as named

__all__ = [
    "DATA",
    "SHARING",
    "by_strategy",
    "config_of",
    "exceeded",
    "main",
    "meets",
    "read",
    "summary",
    "tallied",
]

SHIPPED = ("fed-osd", "no-t", "fed-recover")
EPOCHS = (1, 4)
ROUNDS, RECOVERY = 20, 5

# Small nets and parts of the data: 24 settings are to be had in half an hour of one core.
DATA: dict[str, dict[str, Any]] = {
    "digits": {
        "data": {"name": "digits"},
        "model": {"name": "mlp"},
        "train": {"learning_rate": 0.1},
    },
    "mnist": {
        "data": {"name": "mnist", "limit": 2000, "test_limit": 1000},
        "model": {"name": "mlp", "hidden": 32},
        "train": {"learning_rate": 0.05},
        "marker": {"value": 1.0},
    },
    "adult": {
        "data": {"name": "adult", "limit": 2000, "test_limit": 1000},
        "model": {"name": "mlp", "hidden": 32},
        "train": {"learning_rate": 0.05},
        "marker": {"label": 1},
    },
    "cifar10": {
        "data": {"name": "cifar10", "limit": 1000, "test_limit": 500},
        "model": {"name": "cnn", "width": 8, "hidden": 32},
        # With batches of 32 and one local epoch nothing is learned in 20 rounds.
        "train": {"learning_rate": 0.02, "momentum": 0.9, "batch_size": 10},
    },
}
SHARING: dict[str, dict[str, Any]] = {
    "iid": {"partitioner": "iid"},
    "dirichlet .3": {"partitioner": "dirichlet", "alpha": 0.3},
    "two classes": {"partitioner": "pathological", "num_classes_per_partition": 2},
}
_FIELDS = (
    "data", "sharing", "local_epochs", "seeds", "strategy", "distance", "cost",
    "retain_accuracy", "forget_accuracy", "test_accuracy", "backdoor_success", "failed", "cpu_s",
)  # fmt: skip
_BACKDOOR, _RETAIN, _COST = 0.05, 0.03, 0.5  # the goal: see `meets`
_LAST_DIGIT = 1e-6  # what is written has four

Line = Mapping[str, str]


def config_of(
    data: str, sharing: str, epochs: int, root: str = "data", cifar: str | None = None
) -> Config:
    """Return one of the settings.

    Parameters
    ----------
    data, sharing : str
        Keys of ``DATA`` and ``SHARING``.
    epochs : int
        Local epochs.
    root : str
        The folder of the data sets' files.
    cifar : str, optional
        An .npz that stands for CIFAR-10, where not all of its images are at hand.
    """
    base = DATA[data]
    instead = {"name": f"npz:{cifar}"} if cifar and data == "cifar10" else {}
    return from_mapping(
        {
            "rounds": ROUNDS,
            "recovery_rounds": RECOVERY,
            "device": "cpu",
            "data": {"root": root, "clients": 10, **base["data"], **instead, **SHARING[sharing]},
            "model": base["model"],
            "train": {"batch_size": 32, "local_epochs": epochs, **base["train"]},
            "marker": {"kind": "backdoor", "client": 3, **base.get("marker", {})},
            "requests": [{"scope": "client", "clients": [3]}],
            "engine": {"grid": "local"},
        }
    )


def exceeded(line: Line, retrained: Line) -> tuple[str, ...]:
    """Return what keeps an answer from the goal that defaults are held against.

    ``backdoor``: more than .05 above retraining's; ``accuracy`` on the retained: more than 3 points
    below; ``examples``: more than half of retraining's.
    """
    limits = {
        "backdoor": _difference(line, retrained, "backdoor_success") - _BACKDOOR,
        "accuracy": _difference(retrained, line, "retain_accuracy") - _RETAIN,
        "examples": float(line["cost"]) - _COST,
    }
    return tuple(name for name, excess in limits.items() if excess >= _LAST_DIGIT)


def meets(line: Line, retrained: Line) -> bool:
    """Return whether a strategy answers and meets the goal: see :func:`exceeded`."""
    return not line["failed"] and not exceeded(line, retrained)


def summary(lines: Iterable[Line]) -> str:
    """Return all settings as a table in Markdown, and how many of them each strategy meets."""
    settings: dict[tuple[str, str, str], dict[str, Line]] = {}
    for line in lines:
        place = line["data"], line["sharing"], line["local_epochs"]
        settings.setdefault(place, {})[line["strategy"]] = line
    names = list(dict.fromkeys(name for found in settings.values() for name in found))
    tried = [name for name in names if name not in (ORIGINAL, RETRAIN)]
    rows = [[*place, *(_cell(found, name) for name in names)] for place, found in settings.items()]
    met = {
        name: sum(
            meets(found[name], found[RETRAIN]) for found in settings.values() if name in found
        )
        for name in tried
    }
    counts = [f"{met[name]} of {len(settings)}" if name in met else "" for name in names]
    rows.append(["goal met", "", "", *counts])
    head = ["data", "sharing", "epochs", *names]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def by_strategy(lines: Iterable[Line]) -> str:
    """Return a row per strategy in Markdown: how often the goal is met, and by what it is missed.

    Strategies that answered nowhere are left out.
    """
    rows: list[tuple[int, list[str]]] = []
    for name, facts in tallied(lines).items():
        met, tried = facts["met"], facts["tried"]
        missed = [str(facts[part] or "") for part in ("backdoor", "accuracy", "examples", "failed")]
        rows.append((-met, [name, f"{met} of {tried}", *missed, f"{facts['mean_cost']:.2f}"]))
    head = [
        "strategy", "goal met", "missed by backdoor", "by accuracy", "by examples", "no answer",
        "mean examples",
    ]  # fmt: skip
    body = [row for _, row in sorted(rows, key=lambda row: row[0])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def tallied(lines: Iterable[Line]) -> dict[str, dict[str, Any]]:
    """Return by strategy in how many settings the goal was met, and by what it was missed.

    One setting may miss it by several. Strategies that answered nowhere are left out.
    """
    settings: dict[tuple[str, str, str], dict[str, Line]] = {}
    for line in lines:
        place = line["data"], line["sharing"], line["local_epochs"]
        settings.setdefault(place, {})[line["strategy"]] = line
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for there in settings.values() for name in there):
        tried = [(there[name], there[RETRAIN]) for there in settings.values() if name in there]
        answered = [(own, base) for own, base in tried if not own["failed"]]
        if name == RETRAIN or not answered:
            continue
        over = Counter(part for own, base in answered for part in exceeded(own, base))
        found[name] = {
            "met": sum(meets(own, base) for own, base in tried),
            "tried": len(tried),
            **{part: over[part] for part in ("backdoor", "accuracy", "examples")},
            "failed": len(tried) - len(answered),
            "mean_cost": sum(float(own["cost"]) for own, _ in answered) / len(answered),
        }
    return found


def _difference(one: Line, other: Line, measure: str) -> float:
    return float(one[measure]) - float(other[measure])


def _cell(found: Mapping[str, Line], name: str) -> str:
    line = found.get(name)
    if line is None:
        return ""
    if line["failed"]:
        return "failed"
    parts = [f"{float(line[m]):.2f}" for m in ("backdoor_success", "retain_accuracy", "cost")]
    plain = name in (ORIGINAL, RETRAIN) or meets(line, found[RETRAIN])
    return " / ".join(parts) + ("" if plain else " *")


def _tries(config: Config, names: Sequence[str]) -> list[Try]:
    """Return the strategies with their defaults, and what is held beside them."""
    no_t = make("no-t", {})
    assert isinstance(no_t, NoT)
    start = task(Scenario.of(config)).initial()
    weights = named.parameters(start)
    turned = sum(weights[name].size for name in layers_to_negate(start))
    same = {
        "rounds": rounds_of(no_t.fine_tune_rounds, config.rounds),
        "factor": no_t.fine_tune_factor,
    }
    share = turned / sum(array.size for array in weights.values())
    controls = "experiments.tuning.controls"
    return [
        *(Try(name, name, {}) for name in names),
        Try("plain, no-t's", f"{controls}:PlainTraining", same),
        Try("random reset", f"{controls}:RandomReset", {**same, "share": share}),
        Try("plain", f"{controls}:PlainTraining", {"rounds": 7}),  # .48 of 25 rounds, without 5
    ]


def _named(text: str) -> list[str]:
    """Return the strategies that are named; ``all`` stands for every one there is."""
    if text == ALL:
        return [name for name in strategies() if name != RETRAIN]
    return [name for name in text.split(",") if name]


def _variant(text: str) -> Try:
    """Return the try that ``NAME:STRATEGY:KEY=VALUE KEY=VALUE`` stands for."""
    name, strategy, given = text.split(":", 2)
    pairs = [f'options."{strategy}".{pair}' for pair in shlex.split(given)]
    return Try(name, strategy, from_mapping({}, "--variant", pairs).options_for(strategy))


def _lines(place: Sequence[str], found: Mapping[str, Measured], spent: float) -> Iterator[Line]:
    for name, measured in found.items():
        scores = {n: f"{value:.4f}" for n, value in measured.scores.items()}
        facts = {
            "strategy": name,
            "distance": f"{measured.distance:.4f}",
            "cost": f"{measured.cost:.4f}",
            "failed": measured.failed,
            "cpu_s": f"{spent:.1f}",
        }
        yield dict.fromkeys(_FIELDS, "") | dict(zip(_FIELDS, place, strict=False)) | scores | facts


def read(path: Path) -> list[Line]:
    """Return the rows of a file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not in the file yet, and print the table of what is."""
    parser = argparse.ArgumentParser(description=__doc__, prog="defaults")
    parser.add_argument("--root", default="data")
    parser.add_argument("--cifar", help="an .npz that stands for CIFAR-10")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--strategies", default=",".join(SHIPPED))
    parser.add_argument("--variant", action="append", default=[])
    parser.add_argument("--elsewhere", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "defaults.csv")
    given = parser.parse_args(arguments)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    known = {(line["data"], line["sharing"], line["local_epochs"]) for line in read(given.out)}
    for data in given.data.split(","):
        for sharing in SHARING:
            for epochs in EPOCHS:
                if (data, sharing, str(epochs)) in known:
                    continue
                config = config_of(data, sharing, epochs, given.root, given.cifar)
                used: Sequence[int] = seeds
                if given.elsewhere:
                    config, used = elsewhere(config, len(seeds))
                begun = time.process_time()
                names = _named(given.strategies)
                tries = [*map(_variant, given.variant), *_tries(config, names)]
                found = measure(config, used, tries)
                spent = time.process_time() - begun
                place = (data, sharing, str(epochs), ",".join(map(str, used)))
                new = not given.out.exists()
                with given.out.open("a", newline="") as file:
                    writer = csv.DictWriter(file, _FIELDS, lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerows(_lines(place, found, spent))
                sys.stderr.write(f"{data}, {sharing}, {epochs} epochs: {spent:.0f} s\n")
    table = by_strategy if given.strategies == ALL else summary
    sys.stdout.write(table(read(given.out)) + "\n")


if __name__ == "__main__":
    main()
