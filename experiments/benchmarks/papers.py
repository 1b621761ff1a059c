"""What the papers report beside what this code measured.

Call: ``python -m experiments.benchmarks.papers``.

Prints the table that stands in ``experiments/results/papers.md``. The papers' side is quoted, with
how it was read; our side is worked out from the recorded results and from nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.benchmarks.measured import (
    Measure,
    accuracy,
    alone,
    backdoor,
    both,
    gap,
    nothing,
    pruned_images,
    ratio,
    recent,
    speed_up,
    timeline,
)

__all__ = ["FIGURES", "Figure", "main", "table"]

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


FIGURES: tuple[Figure, ...] = (
    Figure("rapid-retrain", _NOT_READ, "-", "-", speed_up(_DIGITS)),
    Figure(
        "contribution-subtraction",
        "MNIST 0.988, retrained 0.992; CIFAR-10 0.702, retrained 0.758",
        "an independent study",
        "no: digits, 10 clients, the public data are 5 % without labels",
        accuracy(_DIGITS),
    ),
    Figure("fed-recovery", _NOT_READ, "second hand", "-", backdoor(_DIGITS)),
    Figure("sifu", "best on 4 of 5 data sets", "second hand", "no", gap(_FASHION)),
    Figure(
        "fed-eraser",
        "4x expected at ratio 0.5, interval 2",
        "paper",
        "the same ratio and interval; 10 clients for 20; twice the interval scale",
        alone(_DIGITS, "examples"),
    ),
    Figure(
        "fed-eraser",
        "2.1x by arithmetic at ratio 0.5, interval 1 (200 epochs for 95)",
        "authors' code",
        "`reference_federaser.toml`: its 100 clients, 10 a round, options and averages; 10,000 "
        "rows of Adult, batches of 16, one seed",
        both(speed_up("reference_federaser.csv"), accuracy("reference_federaser.csv")),
    ),
    Figure(
        "fed-recover",
        "88 % of client rounds saved on average",
        "second hand",
        "no: 20 rounds, of which 4 warm-up and 2 final are exact; the paper has hundreds",
        alone(_DIGITS, "client_rounds"),
    ),
    Figure(
        "fed-recover",
        "attack success 1.00 to 0.01 (MNIST, trimmed mean)",
        "second hand",
        "MNIST, too, but a narrow CNN, one attacker, plain mean",
        backdoor(_MNIST),
    ),
    Figure("crab", "faster than FedEraser, less memory", "paper, in words", "no", gap(_DIGITS)),
    Figure(
        "gradient-ascent",
        "0.111 at 0.969 clean after 1 round; 0.120 at 0.985 after 10",
        "authors' code",
        "MNIST, 5 clients, 10 rounds as there; success counts no image of the target class, so its "
        "base rate is 0 and not 0.10",
        timeline("recover", (1, 10), "mnist_pga_timeline.csv"),
    ),
    Figure(
        "gradient-ascent",
        "0.111 at 0.969 clean after 1 round; 0.120 at 0.985 after 10",
        "authors' code",
        "`reference_pga.toml`: its options, averages and rounds; 5,000 of MNIST's images, batches "
        "of 16, a narrow CNN, one seed",
        timeline("recover", (1, 10), "reference_pga_timeline.csv"),
    ),
    Figure(
        "fed-osd",
        "attack success to 0",
        "paper, in words",
        "Fashion-MNIST and 10 clients, too; a narrow CNN and 2,000 images",
        backdoor(_FASHION),
    ),
    Figure(
        "fed-osd",
        "attack success to 0",
        "paper, in words",
        "`reference_fedosd.toml`: the released program's options, trigger and shares of classes; "
        "6,000 of MNIST's images and 100 rounds, after which the backdoor has no power, one seed",
        both(backdoor("reference_fedosd.csv"), accuracy("reference_fedosd.csv")),
    ),
    Figure(
        "no-t",
        "Avg Gap 0.29 / 0.75 / 0.79 points",
        "second hand",
        "no: Fashion-MNIST and a narrow CNN for CIFAR-10 and CNNs",
        gap(_FASHION),
    ),
    Figure(
        "no-t",
        "Avg Gap 0.29 points (CIFAR-10 CNN, 10 clients, IID)",
        "second hand",
        "`reference_not.toml`: its rate, layer and half of the rounds; 2,000 images, a narrow CNN, "
        "30 rounds, which learn little, one seed",
        both(gap("reference_not.csv"), accuracy("reference_not.csv")),
    ),
    Figure("mo-de", "5x to 20x faster than retraining", "paper", "no", speed_up(_DIGITS)),
    Figure("mo-de", "Avg Gap 0.90 points (CIFAR-10 CNN)", "second hand", "no", gap(_DIGITS)),
    Figure(
        "ewc-ascent",
        "label 9: retrained 94.36 %, plain ascent 61.53 %",
        "second hand",
        "no",
        gap(_DIGITS),
    ),
    Figure(
        "quick-drop",
        "463.8x faster than retraining",
        "paper",
        "no: 20 rounds of small clients, where the recovery rounds are most of the cost",
        speed_up(_DIGITS),
    ),
    Figure(
        "forest-deletion",
        "orders of magnitude faster",
        "paper, in words",
        "no: 1,437 digits; the paper has up to a million rows",
        ratio("structure_forest.csv"),
    ),
    Figure(
        "boosting-replay",
        "up to two orders of magnitude (DeltaBoost)",
        "paper",
        "no: replay is exact, DeltaBoost is not",
        ratio("structure_boosting.csv"),
    ),
    Figure(
        "k-means",
        "about 84x on average",
        "paper",
        "no: the messages of a few clients are the cost here, not the data",
        ratio("structure_k-means.csv"),
    ),
    Figure(
        "ridge",
        "at most 1e-9 from retraining",
        "paper",
        "a frozen network, too, but a random one; digits, not the paper's images",
        ratio("structure_ridge-head.csv"),
    ),
    Figure(
        "class-pruning",
        "7.9x (VGG) on CIFAR-10",
        "paper",
        "VGG-11 of a quarter of the width, 4,000 images of CIFAR-10, one seed",
        pruned_images("cifar10_vgg_class"),
    ),
    Figure(
        "class-pruning",
        "8.9x (ResNet) on CIFAR-10",
        "paper",
        "a CNN instead, 4,000 images of CIFAR-10",
        pruned_images("cifar10_class"),
    ),
    Figure(
        "task-subtraction",
        "interference -30.3 % (full), -52.9 % (partial)",
        "paper's abstract, centralised",
        "no: no federated method for tasks is published",
        nothing,
    ),
    Figure("heavy-ball", "faster than retraining", "abstract, in words", "no", recent("client")),
    Figure(
        "sharded",
        "1.3x to 6.2x faster than retraining (FedShard)",
        "abstract",
        "no: digits, two shards, each leaver's shard alone learns again",
        recent("sharded"),
    ),
    Figure(
        "sharded",
        "2.1x fewer client rounds of a tree of 16 clients in pairs, three merges",
        "arithmetic of this project",
        "ten clients, four shards, two merges, rounds 10, 5 and 5",
        recent("sharded-tree"),
    ),
    Figure(
        "sequences",
        _NOT_READ,
        "code of S3T, abstract of FedSGT",
        "no: clients in four groups, additive steps on an untrained base; five recovery rounds",
        recent("sequences"),
    ),
    Figure(
        "fats",
        _NOT_READ,
        "abstract",
        "all clients take part in every round, so a leaver was drawn in the first: no saving",
        recent("fats"),
    ),
    Figure("memory-pruning", "close to retraining", "abstract, in words", "no", recent("client")),
    Figure(
        "parameter-estimation",
        "0.9 of the retrained accuracy",
        "abstract",
        "no: digits and a small network",
        recent("client"),
    ),
    Figure(
        "dampening",
        "MNIST backdoor 24.11 to 22.16 %, retrained 0.21 %; CIFAR-10 35.41 to 22.10 %",
        "paper's table",
        "no: digits; the order of arguments that the text asks for, not that of the code",
        recent("client"),
    ),
    Figure(
        "pruning-client",
        "like retraining, faster than others",
        "abstract, in words",
        "no: one client that is named, plain mean",
        recent("client"),
    ),
    Figure(
        "fused",
        "CIFAR-10: retained 0.67, forgotten 0.05; retrained 0.71 and 0.04",
        "paper's page",
        "no: digits, five rounds; it hid nothing here",
        recent("client"),
    ),
    Figure(
        "transformation",
        "CIFAR-10: the class 0.00, others 90.06 %; from scratch 0.00 and 87.99 %",
        "second hand",
        "no: digits, without the contrastive terms",
        recent("class"),
    ),
    Figure("negated-update", _NOT_READ, "authors' code", "-", recent("client")),
    Figure(
        "quit",
        "less than 2.5 % extra rounds; up to 117.6x less communication than retraining",
        "abstracts of two versions",
        "no: five recovery rounds after twenty, whatever accuracy says",
        recent("client"),
    ),
    Figure("forget-loss", _NOT_READ, "authors' code", "kind `npo`", recent("client")),
    Figure("subspace", "1 to 10 points above others", "second hand", "no", recent("client")),
    Figure("auxiliary-head", _NOT_READ, "authors' code", "head after the fact", recent("class")),
    Figure(
        "feature-sensitivity",
        "sensitivity .96 to .09 (CelebA), 1.31 to .05 (Adult); retrained .07 and .02; backdoor "
        "88.98 to .15 % (CIFAR-100)",
        "poster",
        "no: digits, a shortcut planted at all clients, all withdraw it",
        recent("feature"),
    ),
)

if __name__ == "__main__":
    main()
