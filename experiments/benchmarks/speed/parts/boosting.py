"""Boosted trees beside scikit-learn's HistGradientBoosting on Adult."""

from __future__ import annotations

from functools import partial

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from clients.remembered import Remembered
from experiments.benchmarks.speed.clock import HERE, Found, Setting, in_turn
from experiments.config.loading import load
from experiments.federation.task import Scenario, task
from unlearning.arrays import Arrays, flat
from unlearning.evaluation.metrics import accuracy
from unlearning.models.boosting import Boosting
from unlearning.models.boosting_sums import Scored, sums_at
from unlearning.models.trees import Plan
from unlearning.protocol import Reply
from unlearning.request import Forgotten

CLIENTS, REPEATS = 5, 3


def boosting(setting: Setting) -> Found:
    """Measure growth with the work split between clients and server; same iterations and depth."""
    config = HERE / "experiments" / "configs" / "boosting_adult.toml"
    made = task(Scenario.of(load(config, [f"data.root={setting.data('the Adult table')}"])))
    model = made.array_model
    if not isinstance(model, Boosting):
        raise TypeError(f"{config.name} has no boosted trees")
    x, y = made.retain_set(Forgotten())
    x, test = x.reshape(len(y), -1), made.test_set()
    own, other = in_turn(REPEATS, partial(grown, model, x, y), partial(_fit, model, x, y))
    test_x = flat(test.x)
    accuracies = {
        "ours": accuracy(model.predict(grown(model, x, y), test_x), test.y),
        "scikit-learn": float(_fit(model, x, y).score(test_x, test.y)),
    }
    details = {"cpu_s": {"ours": own, "scikit-learn": other}, "accuracies": accuracies}
    return Found({"boosting_ratio": own / other}, details)


def _fit(model: Boosting, x: np.ndarray, y: np.ndarray) -> HistGradientBoostingClassifier:
    theirs = HistGradientBoostingClassifier(
        max_iter=model.iterations,
        learning_rate=model.rate,
        max_depth=model.plan.depth,
        l2_regularization=model.l2,
        early_stopping=False,
        random_state=0,
    )
    return theirs.fit(x, y)


def _scored(plan: Plan, x: np.ndarray, num_classes: int) -> Scored:
    return Scored(plan, x, num_classes)


def grown(model: Boosting, x: np.ndarray, y: np.ndarray) -> Arrays:
    """Return boosted trees: clients sum, the server decides, level by level, without messages."""
    parts = np.array_split(np.arange(len(y)), CLIENTS)
    remembered: Remembered[Scored] = Remembered()
    state = model.initial()
    while not model.is_complete(state):
        asked = model.teach(state, range(CLIENTS))
        replies = []
        for client, part in enumerate(parts):
            mine, how = x[part], asked[client]
            known = remembered.of(mine, "", partial(_scored, model.plan, mine, model.num_classes))
            nodes = how.arrays or {}
            found = sums_at(how.settings, nodes, how.extras["rows"], mine, y[part], known)
            replies.append(Reply(client, len(part), {"total": found.total, "left": found.left}))
        state = model.learn(state, replies)
    return state
