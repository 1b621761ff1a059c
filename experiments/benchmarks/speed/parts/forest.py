"""The forest beside scikit-learn's on Adult: growth, accuracy, deletion of one sample."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from clients.remembered import Remembered
from experiments.benchmarks.speed.clock import Found, Setting, in_turn
from experiments.benchmarks.speed.deleting import deletions
from experiments.config.loading import load
from experiments.federation.task import Scenario, task
from unlearning.arrays import Arrays, flat
from unlearning.evaluation.metrics import accuracy
from unlearning.models import trees
from unlearning.models.forest import Forest
from unlearning.models.forest_counts import counts_of_open
from unlearning.models.tree_sums import Standing, Table
from unlearning.models.trees import Plan
from unlearning.protocol import Reply
from unlearning.request import Forgotten

CONFIGS = Path(__file__).parents[3] / "configs"
SIZES, CLIENTS, REPEATS, SEEDS = (26_050, 3_256, 814), 5, 3, 5
SMALL = {"breast-cancer": [], "digits": ["data.name=digits", "data.clients=10", "model.trees=20"]}


def forest(setting: Setting) -> Found:
    """Measure growth with the work split between clients and server, and deletions throughout."""
    config = CONFIGS / "forest_adult.toml"
    root = [f"data.root={setting.data('the Adult table')}"]
    made = task(Scenario.of(load(config, root)))
    model = made.array_model
    if not isinstance(model, Forest):
        raise TypeError(f"{config.name} is no forest")
    x, y = made.retain_set(Forgotten())
    x, test = x.reshape(len(y), -1), made.test_set()
    growth, seconds = _growth(model, x, y)
    ours, theirs = _accuracies(model, x, y, flat(test.x), test.y)
    found = deletions(config, root, "forest-deletion", 30)
    ratio = seconds["26050"]["scikit-learn"] / statistics.median(found)
    small = {
        name: 1e3
        * statistics.median(
            deletions(CONFIGS / "forest_cancer.toml", changes, "forest-deletion", 30)
        )
        for name, changes in SMALL.items()
    }
    figures = {
        "growth_ratio": growth["26050"],
        "growth_ratios": growth,
        "accuracy_gap": statistics.mean(theirs) - statistics.mean(ours),
        "deletion_ratio": ratio,
        "deletion_ms": max(small.values()),
    }
    details = {
        "cpu_s": seconds,
        "accuracies": {"ours": ours, "scikit-learn": theirs},
        "deletion_ms at 26,050 rows": {
            "median": 1e3 * statistics.median(found),
            "mean": 1e3 * statistics.mean(found),
        },
        "deletion_ms by small table": small,
    }
    return Found(figures, details)


def _growth(
    model: Forest, x: np.ndarray, y: np.ndarray
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Return CPU seconds beside scikit-learn's by number of rows; and these seconds."""
    ratios: dict[str, float] = {}
    seconds: dict[str, dict[str, float]] = {}
    for size in SIZES:
        own, other = in_turn(
            REPEATS,
            partial(grown, model, x[:size], y[:size]),
            partial(_fit, model, x[:size], y[:size]),
        )
        ratios[str(size)] = own / other
        seconds[str(size)] = {"ours": own, "scikit-learn": other}
    return ratios, seconds


def _accuracies(
    model: Forest, x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray
) -> tuple[list[float], list[float]]:
    ours, theirs = [], []
    for seed in range(SEEDS):
        plan = Plan(**{**vars(model.plan), "seed": seed})
        other = Forest(plan, model.num_classes, model.num_trees)
        ours.append(accuracy(other.predict(grown(other, x, y), test_x), test_y))
        theirs.append(float(_theirs(model, seed).fit(x, y).score(test_x, test_y)))
    return ours, theirs


def _theirs(model: Forest, seed: int) -> RandomForestClassifier:
    plan = model.plan
    return RandomForestClassifier(
        model.num_trees,
        max_depth=plan.depth,
        max_features=plan.num_features,
        n_jobs=1,
        random_state=seed,
    )


def _fit(model: Forest, x: np.ndarray, y: np.ndarray) -> object:
    return _theirs(model, 0).fit(x, y)


def _standing(plan: Plan, x: np.ndarray) -> Standing:
    return Standing(Table(plan, x))


def grown(model: Forest, x: np.ndarray, y: np.ndarray) -> Arrays:
    """Return a forest: clients count, the server decides, level by level, without messages."""
    parts = np.array_split(np.arange(len(y)), CLIENTS)
    remembered: Remembered[Standing] = Remembered()
    state, settings = model.initial(), model.settings()
    while not model.is_complete(state):
        nodes = trees.growing(state)
        replies = []
        for client, part in enumerate(parts):
            mine = x[part]  # and, as the step does, whatever is remembered of them
            known = remembered.of(mine, "", partial(_standing, model.plan, mine))
            found = counts_of_open(settings, nodes, mine, y[part], known)
            left = found.left.astype(np.int32)
            replies.append(Reply(client, len(part), {"total": found.total, "left": left}))
        state = model.learn(state, replies)
    return state
