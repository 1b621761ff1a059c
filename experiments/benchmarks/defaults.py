"""How far strategies come with the defaults that they are shipped with, in 24 settings.

``python -m experiments.benchmarks.defaults [--root data] [--seeds 0] [--data digits,mnist]
[--cifar FILE.npz] [--strategies fed-osd,no-t,fed-recover] [--variant "NAME:STRATEGY:KEY=VALUE ..."]
[--public SHARE] [--elsewhere] [--short] [--before FILE] [--out FILE]`` learns digits, MNIST,
Adult and CIFAR-10 with small networks and small parts of the data, shared out evenly, by Dirichlet
.3 and two classes a client, with one and with four local epochs. In each, client 3 has a backdoor
and leaves. A row is a strategy in a setting with a seed; rows are written when their federation is
done, and what is in the file is not made again. At the end a table is printed, means over the
seeds and standard deviations: a row per setting, of the strategies that were named and the
controls, or with ``--short`` a row per strategy, of all in the file.
``--before FILE`` measures nothing and prints what strategies came to in that file beside what they
come to now.

Controls: plain training for as many rounds and at the rate of ``no-t`` (``plain, no-t's``), with a
random reset of as many weights as ``no-t`` negates before it (``random reset``), plain training
at training's rate for what the dearest strategies cost (``plain``), and a random reset of as many
weights as ``memory-pruning`` resets, with as many rounds after it.

Defaults are chosen with ``--elsewhere``, on other seeds and another client than those reported;
``--variant``, which may be repeated, tries a strategy with other options beside its defaults.
``--strategies all`` tries every strategy that lets a client of a network leave; one that trains on
the server answers with ``--public`` alone, the share of the training examples that the server gets.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.rows import RESULTS
from experiments.config.loading import Config, from_mapping
from experiments.config.registry import make
from experiments.federation.course import ALL
from experiments.federation.task import Scenario, task
from experiments.runs.results import ORIGINAL, RETRAIN
from experiments.tuning.trials import Measured, Try, elsewhere, measure
from strategies.base import UnlearningStrategy
from strategies.fitness import who_serves
from strategies.local_model.no_t import NoT, layers_to_negate
from strategies.shares import rounds_of
from strategies.structure.memory_pruning import MemoryPruning
from unlearning import arrays as named
from unlearning.errors import ConfigError, FedUnlearnError, unknown
from unlearning.request import Scope

__all__ = [
    "DATA",
    "PARTS",
    "SHARING",
    "before_and_after",
    "behind",
    "by_strategy",
    "config_of",
    "exceeded",
    "main",
    "meets",
    "read",
    "shown",
    "summary",
    "tallied",
]

CONTROLS = ("plain, no-t's", "random reset", "plain", "random reset, memory-pruning's")
SHIPPED = ("fed-osd", "no-t", "fed-recover")
PARTS = ("backdoor", "accuracy", "examples")  # of the goal
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
    "data", "sharing", "local_epochs", "seed", "strategy", "distance", "cost",
    "retain_accuracy", "forget_accuracy", "test_accuracy", "backdoor_success", "failed", "cpu_s",
)  # fmt: skip
_ALLOWED = {"backdoor": 0.05, "accuracy": 0.03, "examples": 0.5}  # the goal: see `exceeded`
_LAST_DIGIT = 1e-6  # what is written has four
_HALF_DIGIT = 0.005  # a spread below is none where two digits are shown
_SHOWN = ("backdoor_success", "retain_accuracy", "cost")

Line = Mapping[str, str]
Place = tuple[str, str, str]  # data, sharing, local epochs


def config_of(
    data: str,
    sharing: str,
    epochs: int,
    root: str = "data",
    cifar: str | None = None,
    public: float = 0.0,
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
    public : float
        Share of the training examples that the server gets, without labels.
    """
    base = DATA[data]
    instead = {"name": f"npz:{cifar}"} if cifar and data == "cifar10" else {}
    shared = {"root": root, "clients": 10, "public": public}
    return from_mapping(
        {
            "rounds": ROUNDS,
            "recovery_rounds": RECOVERY,
            "device": "cpu",
            "data": {**shared, **base["data"], **instead, **SHARING[sharing]},
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
    return tuple(
        name for name, far in behind(line, retrained).items() if far - _ALLOWED[name] >= _LAST_DIGIT
    )


def behind(line: Line, retrained: Line) -> dict[str, float]:
    """Return how far an answer is from retraining in what the goal is about.

    ``backdoor``: what is left of it above retraining's; ``accuracy`` on the retained below
    retraining's; ``examples``: as a share of retraining's.
    """
    return {
        "backdoor": _difference(line, retrained, "backdoor_success"),
        "accuracy": _difference(retrained, line, "retain_accuracy"),
        "examples": float(line["cost"]),
    }


def meets(line: Line, retrained: Line) -> bool:
    """Return whether a strategy answers and meets the goal: see :func:`exceeded`."""
    return not line["failed"] and not exceeded(line, retrained)


def summary(lines: Iterable[Line]) -> str:
    """Return all settings as a table in Markdown, and how many of them each strategy meets.

    A cell: the mean over the seeds of what is left of the backdoor, of accuracy on the retained and
    of the cost, with standard deviations where there are several seeds; a star if the means miss
    the goal.
    """
    places = _by_place(lines)
    names = list(dict.fromkeys(name for found in places.values() for name in found))
    met = {
        name: [_meets_mean(found, name) for found in places.values() if name in found]
        for name in names
        if name not in (ORIGINAL, RETRAIN)
    }
    rows = [[*place, *(_cell(found, name) for name in names)] for place, found in places.items()]
    counts = [f"{sum(met[n])} of {len(met[n])}" if n in met else "" for n in names]
    rows.append(["goal met", "", "", *counts])
    return _table(["data", "sharing", "epochs", *names], rows)


def shown(lines: Iterable[Line], names: Collection[str] = SHIPPED) -> list[Line]:
    """Return the rows of some strategies, of what they are held against, and of the controls."""
    wanted = {ORIGINAL, RETRAIN, *CONTROLS, *names}
    return [line for line in lines if line["strategy"] in wanted]


def by_strategy(lines: Iterable[Line]) -> str:
    """Return a row per strategy in Markdown: how often the goal is met, and by what it is missed.

    Of each data set, in how many of its settings; in brackets, the furthest from retraining that
    was come by: what is left of the backdoor above its, accuracy on the retained below its, share
    of its examples. Strategies that answered nowhere are left out.
    """
    found = tallied(lines)
    sets = list(dict.fromkeys(data for facts in found.values() for data in facts["by_data"]))
    rows: list[tuple[int, list[str]]] = []
    for name, facts in found.items():
        met, tried = facts["met"], facts["tried"]
        each = [str(facts["by_data"][data][0]) if data in facts["by_data"] else "" for data in sets]
        missed = [
            f"{facts[part]} ({facts['worst'][part][0]:.3f})" if facts[part] else ""
            for part in PARTS
        ]
        spread = "" if facts["spread"] is None else f"{facts['spread']:.3f}"
        always = f"{facts['always']} of {tried}" if spread else ""
        seeds = "-".join(str(count) for count in sorted(facts["seeds"]))
        rest = [str(facts["failed"] or ""), f"{facts['mean_cost']:.2f}", seeds, always, spread]
        rows.append((-met, [name, f"{met} of {tried}", *each, *missed, *rest]))
    head = [
        "strategy", "goal met", *sets, "missed by backdoor", "by accuracy", "by examples",
        "no answer", "mean examples", "seeds", "met with every seed", "spread of the backdoor",
    ]  # fmt: skip
    body = [row for _, row in sorted(rows, key=lambda row: row[0])]
    return _table(head, body)


def tallied(lines: Iterable[Line]) -> dict[str, dict[str, Any]]:
    """Return by strategy in how many settings the goal was met, and by what it was missed.

    Means over the seeds decide; one setting may miss it by several. Strategies that answered
    nowhere are left out.

    Returns
    -------
    dict
        By strategy: ``met``, ``tried`` and ``failed``, numbers of settings; ``by_data``, the first
        two of each data set; ``backdoor``, ``accuracy`` and ``examples``, by what it was missed in
        how many, and ``worst``, by each of the three the furthest from retraining, as of
        :func:`behind`, with the setting where that was; ``mean_cost``; ``seeds``,
        the least and the largest number of seeds of a setting; ``always``, settings in which every
        seed meets the goal; ``spread``, the mean over settings of the standard deviation over seeds
        of the backdoor left above retraining's (None with one seed).
    """
    places = _by_place(lines)
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for there in places.values() for name in there):
        tried = {place: _pairs(there, name) for place, there in places.items() if name in there}
        means = {
            place: _means(pairs)
            for place, pairs in tried.items()
            if not any(own["failed"] for own, _ in pairs)
        }
        if name == RETRAIN or not means:
            continue
        over = Counter(part for own, base in means.values() for part in exceeded(own, base))
        distances = {place: behind(own, base) for place, (own, base) in means.items()}
        spreads = [_spread(tried[place]) for place in means if len(tried[place]) > 1]
        sizes = [len(pairs) for pairs in tried.values()]
        met = {place for place, (own, base) in means.items() if meets(own, base)}
        found[name] = {
            "met": len(met),
            "tried": len(tried),
            "by_data": {
                data: (_count(met, data), _count(tried, data))
                for data in dict.fromkeys(place[0] for place in tried)
            },
            **{part: over[part] for part in PARTS},
            "worst": {
                part: max((far[part], at) for at, far in distances.items()) for part in PARTS
            },
            "failed": len(tried) - len(means),
            "mean_cost": statistics.fmean(float(own["cost"]) for own, _ in means.values()),
            "seeds": {min(sizes), max(sizes)},
            "always": sum(all(meets(own, base) for own, base in pairs) for pairs in tried.values()),
            "spread": statistics.fmean(spreads) if spreads else None,
        }
    return found


def _count(places: Iterable[Place], data: str) -> int:
    return sum(place[0] == data for place in places)


def before_and_after(before: Iterable[Line], after: Iterable[Line]) -> str:
    """Return a table in Markdown of what strategies came to with former defaults and come to now.

    Compared are the settings and seeds of which both have something.
    """
    old, new = list(before), list(after)
    both = {_where(line) for line in old} & {_where(line) for line in new}
    was, now = (
        tallied(line for line in lines if _where(line) in both or line["strategy"] == RETRAIN)
        for lines in (old, new)
    )
    head = ["strategy", "goal met before", "mean examples", "goal met now", "mean examples"]
    rows = [
        [name, *(part for one in (was[name], now[name]) for part in _met_and_cost(one))]
        for name in sorted(was.keys() & now.keys(), key=lambda name: (-now[name]["met"], name))
        if name != ORIGINAL
    ]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _met_and_cost(facts: Mapping[str, Any]) -> tuple[str, str]:
    return f"{facts['met']} of {facts['tried']}", f"{facts['mean_cost']:.2f}"


def _where(line: Line) -> tuple[str, ...]:
    return tuple(line[name] for name in _FIELDS[:5])


def _by_place(lines: Iterable[Line]) -> dict[Place, dict[str, list[Line]]]:
    places: dict[Place, dict[str, list[Line]]] = {}
    for line in lines:
        place = line["data"], line["sharing"], line["local_epochs"]
        places.setdefault(place, {}).setdefault(line["strategy"], []).append(line)
    return places


def _pairs(found: Mapping[str, Sequence[Line]], name: str) -> list[tuple[Line, Line]]:
    """Return what a strategy came to in a setting, each seed beside retraining with that seed."""
    retrained = {line["seed"]: line for line in found[RETRAIN]}
    return [(line, retrained[line["seed"]]) for line in found[name]]


def _means(pairs: Sequence[tuple[Line, Line]]) -> tuple[Line, Line]:
    """Return the means over the seeds of a strategy that answered, and of retraining."""
    own, base = (
        {name: str(statistics.fmean(float(line[name]) for line in side)) for name in _SHOWN}
        for side in zip(*pairs, strict=True)
    )
    return own | {"failed": ""}, base | {"failed": ""}


def _meets_mean(found: Mapping[str, Sequence[Line]], name: str) -> bool:
    pairs = _pairs(found, name)
    return not any(own["failed"] for own, _ in pairs) and meets(*_means(pairs))


def _spread(pairs: Sequence[tuple[Line, Line]]) -> float:
    return statistics.stdev(_difference(own, base, "backdoor_success") for own, base in pairs)


def _difference(one: Line, other: Line, measure: str) -> float:
    return float(one[measure]) - float(other[measure])


def _cell(found: Mapping[str, Sequence[Line]], name: str) -> str:
    lines = found.get(name)
    if lines is None:
        return ""
    if any(line["failed"] for line in lines):
        return "failed"
    parts = [_with_spread([float(line[measure]) for line in lines]) for measure in _SHOWN]
    plain = name in (ORIGINAL, RETRAIN) or _meets_mean(found, name)
    return " / ".join(parts) + ("" if plain else " *")


def _with_spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    if len(values) == 1 or (spread := statistics.stdev(values)) < _HALF_DIGIT:
        return mean
    return f"{mean}±{spread:.2f}"


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
    pruning = make("memory-pruning", {})
    assert isinstance(pruning, MemoryPruning)
    learned = 1 + rounds_of(pruning.fine_tune_rounds, config.rounds)
    as_many = {"rounds": learned, "share": pruning.share}
    controls = "experiments.tuning.controls"
    plain_as_no_t, reset, plain, reset_more = CONTROLS
    return [
        *(Try(name, name, {}) for name in names),
        Try(plain_as_no_t, f"{controls}:PlainTraining", same),
        Try(reset, f"{controls}:RandomReset", {**same, "share": share}),
        Try(plain, f"{controls}:PlainTraining", {"rounds": 7}),  # .48 of 25 rounds, without 5
        Try(reset_more, f"{controls}:RandomReset", as_many),
    ]


def _named(text: str) -> list[str]:
    """Return the strategies that are named; ``all``: those that let a client of a network leave."""
    if text == ALL:
        return [name for name in who_serves(UnlearningStrategy, Scope.CLIENT) if name != RETRAIN]
    return [name for name in text.split(",") if name]


def _variant(text: str) -> Try:
    """Return the try that ``NAME:STRATEGY:KEY=VALUE KEY=VALUE`` stands for."""
    if text.count(":") < 2:
        raise ConfigError(f"--variant is {text!r}; give NAME:STRATEGY:KEY=VALUE ...")
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
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        sys.stdout.write(_table_of(given) + "\n")
    except FedUnlearnError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, prog="defaults")
    parser.add_argument("--root", default="data")
    parser.add_argument("--cifar", help="an .npz that stands for CIFAR-10")
    parser.add_argument("--public", type=float, default=0.0)
    parser.add_argument("--seeds", type=_seeds, default="0")
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--strategies", default=",".join(SHIPPED))
    parser.add_argument("--variant", action="append", default=[])
    parser.add_argument("--elsewhere", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "defaults_all.csv")
    return parser


def _table_of(given: argparse.Namespace) -> str:
    """Return the table that is asked for, when all that it rests on is measured."""
    if given.before:
        if not given.before.is_file():
            raise ConfigError(f"--before {given.before} is no file")
        return before_and_after(read(given.before), read(given.out))
    names = (*_named(given.strategies), *(_variant(text).name for text in given.variant))
    for data in given.data.split(","):
        if data not in DATA:
            raise ConfigError(f"--data: {unknown('data set', data, DATA)}")
        for sharing in SHARING:
            for epochs in EPOCHS:
                config = config_of(data, sharing, epochs, given.root, given.cifar, given.public)
                used: Sequence[int] = given.seeds
                if given.elsewhere:
                    config, used = elsewhere(config, len(used))
                for seed in used:
                    place = (data, sharing, str(epochs), str(seed))
                    _measured(place, config, given)
    lines = read(given.out)
    return by_strategy(lines) if given.short else summary(shown(lines, names))


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers") from None


def _measured(place: tuple[str, ...], config: Config, given: argparse.Namespace) -> None:
    """Write the rows of a setting and a seed that are not in the file yet."""
    lines, new_file = read(given.out), not given.out.exists()
    known = {line["strategy"] for line in lines if tuple(line[n] for n in _FIELDS[:4]) == place}
    wanted = [*map(_variant, given.variant), *_tries(config, _named(given.strategies))]
    tries = [one for one in wanted if one.name not in known]
    if not tries:
        return
    begun = time.process_time()
    found = measure(config, [int(place[-1])], tries)
    spent = time.process_time() - begun
    with given.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, _FIELDS, lineterminator="\n")
        if new_file:
            writer.writeheader()
        new = {name: measured for name, measured in found.items() if name not in known}
        writer.writerows(_lines(place, new, spent))
    sys.stderr.write(f"{', '.join(place)}: {spent:.0f} s\n")


if __name__ == "__main__":
    main()
