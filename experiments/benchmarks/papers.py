"""What the papers report beside what this code measured.

Call: ``python -m experiments.benchmarks.papers``.

Prints the table that stands in ``experiments/results/papers.md``. The papers' side is quoted, with
how it was read; our side is worked out from the recorded results and from nothing else.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from experiments.runs.table import with_sd
from unlearning.evaluation.scorecard import summarise

__all__ = ["FIGURES", "Figure", "main", "table"]

RESULTS = Path(__file__).parents[1] / "results"

Row = Mapping[str, str]
Rows = Sequence[Row]
Measure = Callable[[str], str]  # strategy -> what we measured

_SALUN = ("retain_accuracy", "forget_accuracy", "test_accuracy", "mia_auc")
_DIGITS = "families_client_iid.csv"
_MNIST = "families_cnn_mnist.csv"
_FASHION = "families_cnn_fashion-mnist.csv"
_NOT_READ = "none could be read"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Parameters
    ----------
    strategy : str
        Alias.
    paper : str
        The paper's figure, with its unit.
    source : str
        How it was read: in the paper, in the authors' code, or at second hand.
    setting : str
        The paper's setting beside ours: the same, or what differs.
    measure : callable
        Given the strategy, says what we measured and in which file.
    """

    strategy: str
    paper: str
    source: str
    setting: str
    measure: Measure


def table(figures: Sequence[Figure]) -> str:
    """Return the table in Markdown.

    Raises
    ------
    FileNotFoundError
        If a result that a line rests on was not recorded.
    """
    head = "| strategy | the paper's figure | read in | ours | the same setting? |"
    lines = [head, "| --- " * 5 + "|"]
    for figure in figures:
        cells = (
            f"`{figure.strategy}`",
            figure.paper,
            figure.source,
            figure.measure(figure.strategy),
            figure.setting,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    sys.stdout.write(table(FIGURES) + "\n")


# How our side is worked out ---------------------------------------------------------------------


def _read(name: str) -> Rows:
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _pairs(name: str, strategy: str, other: str = "retrain") -> Iterator[tuple[Row, Row]]:
    """Yield a strategy's row beside another's, seed by seed."""
    rows = _read(name)
    others = {row["seed"]: row for row in rows if row["strategy"] == other}
    yield from ((row, others[row["seed"]]) for row in rows if row["strategy"] == strategy)


def _spread(values: Sequence[float], digits: int = 3) -> str:
    return with_sd(summarise(values), digits)


def _accuracy(name: str) -> Measure:
    def measure(strategy: str) -> str:
        pairs = list(_pairs(name, strategy))
        ours = _spread([float(row["test_accuracy"]) for row, _ in pairs])
        theirs = _spread([float(row["test_accuracy"]) for _, row in pairs])
        return f"test accuracy {ours}, retrained {theirs} (`{name}`)"

    return measure


def _speed_up(name: str) -> Measure:
    def measure(strategy: str) -> str:
        values = [float(row["speedup_examples"]) for row, _ in _pairs(name, strategy)]
        return f"{_spread(values, 2)}x by examples, recovery included (`{name}`)"

    return measure


def _backdoor(name: str) -> Measure:
    def measure(strategy: str) -> str:
        before = [float(r["backdoor_success"]) for _, r in _pairs(name, strategy, "original")]
        after = [float(r["backdoor_success"]) for r, _ in _pairs(name, strategy)]
        return f"backdoor success {_spread(before)} to {_spread(after)} (`{name}`)"

    return measure


def _gap(name: str) -> Measure:
    def measure(strategy: str) -> str:
        gaps = [
            100 * mean(abs(float(row[key]) - float(other[key])) for key in _SALUN)
            for row, other in _pairs(name, strategy)
        ]
        return f"Avg Gap {_spread(gaps, 2)} points (`{name}`)"

    return measure


def _alone(name: str, column: str) -> Measure:
    """Compare unlearning without the recovery that follows; fine-tuning is nothing but recovery."""

    def measure(strategy: str) -> str:
        recovery = {row["seed"]: float(row[column]) for row, _ in _pairs(name, "fine-tune")}
        ratios = [
            (float(other[column]) - recovery[row["seed"]])
            / (float(row[column]) - recovery[row["seed"]])
            for row, other in _pairs(name, strategy)
        ]
        what = column.replace("_", " ")
        saved = f"; {100 * (1 - 1 / mean(ratios)):.0f} % saved" if "client" in column else ""
        return f"{_spread(ratios, 2)}x by {what}{saved}, unlearning alone (`{name}`)"

    return measure


def _timeline(phase: str, rounds: Sequence[int], name: str) -> Measure:
    """Read the recovery of a run over its timeline."""

    def measure(strategy: str) -> str:
        rows = [row for row in _read(name) if row["strategy"] == strategy and row["phase"] == phase]
        found = [rows[number - 1] for number in rounds]
        values = [
            f"{float(row['backdoor_success']):.3f} at {float(row['test_accuracy']):.3f} clean"
            for row in found
        ]
        after = " and ".join(str(number) for number in rounds)
        return f"after {after} rounds: {'; '.join(values)} (`{name}`)"

    return measure


def _ratio(name: str) -> Measure:
    def measure(strategy: str) -> str:
        rows = _read(name)
        identical = sum(row["identical"] == "True" for row in rows)
        ratio = median(float(row["ratio"]) for row in rows)
        largest = max(float(row["largest_difference"]) for row in rows)
        return (
            f"median {ratio:.1f}x; {identical} of {len(rows)} deletions identical, largest "
            f"difference {largest:.1e} (`{name}`)"
        )

    return measure


def _recent(scope: str) -> Measure:
    """Tell accuracy, what is left of the forgotten and the speed-up, all beside retraining."""

    def measure(strategy: str) -> str:
        name = f"recent_{scope}.csv"
        key = "forget_accuracy" if scope == "class" else "backdoor_success"
        word = "the class" if scope == "class" else "marker"
        pairs = list(_pairs(name, strategy))
        told = []
        for label, column in (("test accuracy", "test_accuracy"), (word, key)):
            ours, theirs = (_spread([float(pair[at][column]) for pair in pairs]) for at in (0, 1))
            told.append(f"{label} {ours}, retrained {theirs}")
        speed = _spread([float(row["speedup_examples"]) for row, _ in pairs], 2)
        return f"{'; '.join(told)}; {speed}x by examples (`{name}`)"

    return measure


def _both(first: Measure, second: Measure) -> Measure:
    def measure(strategy: str) -> str:
        return f"{first(strategy)}; {second(strategy)}"

    return measure


def _pruned_images(config: str) -> Measure:
    def measure(strategy: str) -> str:
        name = "classes_cifar10.csv"
        rows = [r for r in _read(name) if (r["config"], r["strategy"]) == (config, strategy)]
        whole, matched = (
            _spread([float(row[key]) for row in rows], 1)
            for key in ("speedup_examples", "speedup_matched_examples")
        )
        return (
            f"{whole}x by examples, {matched}x until the other classes are within two points of "
            f"retraining (`{name}`)"
        )

    return measure


def _nothing(strategy: str) -> str:
    return "not measured in these terms"


FIGURES: tuple[Figure, ...] = (
    Figure("rapid-retrain", _NOT_READ, "-", "-", _speed_up(_DIGITS)),
    Figure(
        "contribution-subtraction",
        "MNIST 0.988, retrained 0.992; CIFAR-10 0.702, retrained 0.758",
        "an independent study",
        "no: digits, 10 clients, the public data are 5 % without labels",
        _accuracy(_DIGITS),
    ),
    Figure("fed-recovery", _NOT_READ, "second hand", "-", _backdoor(_DIGITS)),
    Figure("sifu", "best on 4 of 5 data sets", "second hand", "no", _gap(_FASHION)),
    Figure(
        "fed-eraser",
        "4x expected at ratio 0.5, interval 2",
        "paper",
        "the same ratio and interval; 10 clients for 20; twice the interval scale",
        _alone(_DIGITS, "examples"),
    ),
    Figure(
        "fed-eraser",
        "2.1x by arithmetic at ratio 0.5, interval 1 (200 epochs for 95)",
        "authors' code",
        "`reference_federaser.toml`: its 100 clients, 10 a round, options and averages; 10,000 "
        "rows of Adult, batches of 16, one seed",
        _both(_speed_up("reference_federaser.csv"), _accuracy("reference_federaser.csv")),
    ),
    Figure(
        "fed-recover",
        "88 % of client rounds saved on average",
        "second hand",
        "no: 20 rounds, of which 4 warm-up and 2 final are exact; the paper has hundreds",
        _alone(_DIGITS, "client_rounds"),
    ),
    Figure(
        "fed-recover",
        "attack success 1.00 to 0.01 (MNIST, trimmed mean)",
        "second hand",
        "MNIST, too, but a narrow CNN, one attacker, plain mean",
        _backdoor(_MNIST),
    ),
    Figure("crab", "faster than FedEraser, less memory", "paper, in words", "no", _gap(_DIGITS)),
    Figure(
        "gradient-ascent",
        "0.111 at 0.969 clean after 1 round; 0.120 at 0.985 after 10",
        "authors' code",
        "MNIST, 5 clients, 10 rounds as there; success counts no image of the target class, so its "
        "base rate is 0 and not 0.10",
        _timeline("recover", (1, 10), "mnist_pga_timeline.csv"),
    ),
    Figure(
        "gradient-ascent",
        "0.111 at 0.969 clean after 1 round; 0.120 at 0.985 after 10",
        "authors' code",
        "`reference_pga.toml`: its options, averages and rounds; 5,000 of MNIST's images, batches "
        "of 16, a narrow CNN, one seed",
        _timeline("recover", (1, 10), "reference_pga_timeline.csv"),
    ),
    Figure(
        "fed-osd",
        "attack success to 0",
        "paper, in words",
        "Fashion-MNIST and 10 clients, too; a narrow CNN and 2,000 images",
        _backdoor(_FASHION),
    ),
    Figure(
        "no-t",
        "Avg Gap 0.29 / 0.75 / 0.79 points",
        "second hand",
        "no: Fashion-MNIST and a narrow CNN for CIFAR-10 and CNNs",
        _gap(_FASHION),
    ),
    Figure("mo-de", "5x to 20x faster than retraining", "paper", "no", _speed_up(_DIGITS)),
    Figure("mo-de", "Avg Gap 0.90 points (CIFAR-10 CNN)", "second hand", "no", _gap(_DIGITS)),
    Figure(
        "ewc-ascent",
        "label 9: retrained 94.36 %, plain ascent 61.53 %",
        "second hand",
        "no",
        _gap(_DIGITS),
    ),
    Figure(
        "quick-drop",
        "463.8x faster than retraining",
        "paper",
        "no: 20 rounds of small clients, where the recovery rounds are most of the cost",
        _speed_up(_DIGITS),
    ),
    Figure(
        "forest-deletion",
        "orders of magnitude faster",
        "paper, in words",
        "no: 1,437 digits; the paper has up to a million rows",
        _ratio("structure_forest.csv"),
    ),
    Figure(
        "boosting-replay",
        "up to two orders of magnitude (DeltaBoost)",
        "paper",
        "no: replay is exact, DeltaBoost is not",
        _ratio("structure_boosting.csv"),
    ),
    Figure(
        "k-means",
        "about 84x on average",
        "paper",
        "no: the messages of a few clients are the cost here, not the data",
        _ratio("structure_k-means.csv"),
    ),
    Figure(
        "ridge",
        "at most 1e-9 from retraining",
        "paper",
        "a frozen network, too, but a random one; digits, not the paper's images",
        _ratio("structure_ridge-head.csv"),
    ),
    Figure(
        "class-pruning",
        "7.9x (VGG) on CIFAR-10",
        "paper",
        "VGG-11 of a quarter of the width, 4,000 images of CIFAR-10, one seed",
        _pruned_images("cifar10_vgg_class"),
    ),
    Figure(
        "class-pruning",
        "8.9x (ResNet) on CIFAR-10",
        "paper",
        "a CNN instead, 4,000 images of CIFAR-10",
        _pruned_images("cifar10_class"),
    ),
    Figure(
        "task-subtraction",
        "interference -30.3 % (full), -52.9 % (partial)",
        "paper's abstract, centralised",
        "no: no federated method for tasks is published",
        _nothing,
    ),
    Figure("heavy-ball", "faster than retraining", "abstract, in words", "no", _recent("client")),
    Figure(
        "sharded",
        "1.3x to 6.2x faster than retraining (FedShard)",
        "abstract",
        "no: digits, two shards, each leaver's shard alone learns again",
        _recent("sharded"),
    ),
    Figure(
        "sharded",
        "2.1x fewer client rounds of a tree of 16 clients in pairs, three merges",
        "arithmetic of this project",
        "ten clients, four shards, two merges, rounds 10, 5 and 5",
        _recent("sharded-tree"),
    ),
    Figure(
        "sequences",
        _NOT_READ,
        "code of S3T, abstract of FedSGT",
        "no: clients in four groups, additive steps on an untrained base; five recovery rounds",
        _recent("sequences"),
    ),
    Figure(
        "fats",
        _NOT_READ,
        "abstract",
        "all clients take part in every round, so a leaver was drawn in the first: no saving",
        _recent("fats"),
    ),
    Figure("memory-pruning", "close to retraining", "abstract, in words", "no", _recent("client")),
    Figure(
        "parameter-estimation",
        "0.9 of the retrained accuracy",
        "abstract",
        "no: digits and a small network",
        _recent("client"),
    ),
    Figure(
        "dampening",
        "MNIST backdoor 24.11 to 22.16 %, retrained 0.21 %; CIFAR-10 35.41 to 22.10 %",
        "paper's table",
        "no: digits; the order of arguments that the text asks for, not that of the code",
        _recent("client"),
    ),
    Figure(
        "pruning-client",
        "like retraining, faster than others",
        "abstract, in words",
        "no: one client that is named, plain mean",
        _recent("client"),
    ),
    Figure(
        "fused",
        "CIFAR-10: retained 0.67, forgotten 0.05; retrained 0.71 and 0.04",
        "paper's page",
        "no: digits, five rounds; it hid nothing here",
        _recent("client"),
    ),
    Figure(
        "transformation",
        "CIFAR-10: the class 0.00, others 90.06 %; from scratch 0.00 and 87.99 %",
        "second hand",
        "no: digits, without the contrastive terms",
        _recent("class"),
    ),
    Figure("negated-update", _NOT_READ, "authors' code", "-", _recent("client")),
    Figure(
        "quit",
        "less than 2.5 % extra rounds; up to 117.6x less communication than retraining",
        "abstracts of two versions",
        "no: five recovery rounds after twenty, whatever accuracy says",
        _recent("client"),
    ),
    Figure("forget-loss", _NOT_READ, "authors' code", "kind `npo`", _recent("client")),
    Figure("subspace", "1 to 10 points above others", "second hand", "no", _recent("client")),
    Figure("auxiliary-head", _NOT_READ, "authors' code", "head after the fact", _recent("class")),
    Figure(
        "feature-sensitivity",
        "sensitivity .96 to .09 (CelebA), 1.31 to .05 (Adult); retrained .07 and .02; backdoor "
        "88.98 to .15 % (CIFAR-100)",
        "poster",
        "no: digits, a shortcut planted at all clients, all withdraw it",
        _recent("feature"),
    ),
)

if __name__ == "__main__":
    main()
