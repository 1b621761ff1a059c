"""The leaver's kit: an exact test, and what may be concluded from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from unlearning.evaluation.marker_pack import (
    ALPHA,
    MarkerPack,
    Reading,
    Standing,
    draw,
    judge,
    read,
)

X = np.random.default_rng(0).random((30, 20), dtype=np.float32)


def pack(seed: int = 1, **changes: int) -> MarkerPack:
    return draw(X, 4, seed=seed, **changes)


def blind(inputs: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the answers of a model that never saw a template, but likes class 2."""
    weights = np.random.default_rng(seed).normal(size=(inputs.shape[1], 4)) * 3 / 2
    logits = inputs @ weights + np.array([0, 0, 3, 0])
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def knowing(of: MarkerPack, sure: float = 0.97) -> np.ndarray:
    """Return the answers of a model that learned the secret templates."""
    inputs, labels = of.questions()
    found = blind(inputs)
    for place in range(of.templates * 10):  # the secret templates come first
        found[place] = (1 - sure) / 3
        found[place, labels[place]] = sure
    return found


def test_marked_examples_are_noisy_copies_of_the_templates_asked_about() -> None:
    made = pack(count=28, templates=7)
    x, y = made.marked()
    assert x.shape == (28, 20)
    assert y.shape == (28,)
    assert (x >= X.min(0)).all()
    assert (x <= X.max(0)).all()
    asked, labels = made.questions()
    for template in range(7):
        copies = x[template::7]
        mine = slice(10 * template, 10 * template + 10)
        assert np.abs(copies.mean(0) - asked[mine].mean(0)).max() < 0.2
        assert set(y[template::7].tolist()) == set(labels[mine].tolist())
    # Trained examples and questions are different draws.
    assert not (x[:, None] == asked[None, :70]).all(-1).any()


def test_a_seed_gives_one_pack_and_another_seed_another() -> None:
    assert all(map(np.array_equal, pack(1).questions(), pack(1).questions()))
    assert not np.array_equal(pack(1).marked()[0], pack(2).marked()[0])


def test_noise_and_templates_come_from_different_addresses() -> None:
    # Seed sequences are padded with zeros: addresses that end in zero would collide.
    made = replace(pack(), low=np.zeros(64, np.float32), high=np.ones(64, np.float32))
    x, _ = made.marked()
    forms = (made.questions()[0][:70:10] > 0.5).astype(float)
    noise = x[:7] - forms
    assert abs(stats.pearsonr(noise.ravel(), forms.ravel()).statistic) > 0  # clipped towards inside
    again = np.random.default_rng([made.seed, 0, 1]).normal(size=x[:7].shape)
    assert abs(stats.spearmanr(np.abs(noise).ravel(), np.abs(again).ravel()).statistic) < 0.2


def test_a_model_that_learned_the_templates_is_told() -> None:
    found = read(pack(), knowing(pack()))
    assert found.p_value == 1 / 200
    assert found.visible
    assert found.power == 1.0
    assert found.score == pytest.approx(np.log(0.97))


def test_the_p_value_is_uniform_for_a_model_that_never_saw_the_templates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With any number of decoys: with 19, one in twenty for every value, 0.1 among them."""
    monkeypatch.setattr("unlearning.evaluation.marker_pack._DECOYS", 19)
    values = []
    for seed in range(300):
        made = pack(seed, count=3, templates=3)
        values.append(read(made, blind(made.questions()[0], seed % 7)).p_value)
    assert stats.kstest(values, "uniform").pvalue > 0.001
    assert stats.binomtest(sum(p <= 0.1 for p in values), 300, 0.1).pvalue > 0.001


def test_ties_count_against_the_marker() -> None:
    made = pack()
    same = np.full((len(made.questions()[1]), 4), 0.25)
    found = read(made, same)
    assert found.p_value == 1.0
    assert found.power == 0.0


@pytest.mark.parametrize(
    ("after", "before", "standing"),
    [
        (0.005, None, Standing.STILL_THERE),
        (0.01, 0.5, Standing.STILL_THERE),
        (0.5, None, Standing.UNKNOWN_POWER),
        (0.5, 0.005, Standing.NOT_VISIBLE),
        (0.5, 0.2, Standing.NO_POWER),
    ],
)
def test_what_may_be_concluded(after: float, before: float | None, standing: Standing) -> None:
    readings = [None if p is None else Reading(0.0, (), p, 1.0) for p in (after, before)]
    assert readings[0] is not None
    assert judge(readings[0], readings[1]) is standing
    assert ALPHA == 0.01


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 2, "templates": 3}, "2 examples of 3 templates"),
        ({"templates": 0}, "of 0 templates"),
    ],
)
def test_numbers_that_tell_nothing_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pack(**changes)


def test_inputs_that_do_not_vary_are_refused() -> None:
    with pytest.raises(ValueError, match="differ somewhere"):
        draw(np.ones((3, 5), np.float32), 4, seed=0)
    with pytest.raises(ValueError, match="two or more"):
        draw(X, 1, seed=0)
    with pytest.raises(ValueError, match="finite"):
        draw(X * np.nan, 4, seed=0)


def test_answers_of_another_shape_or_logits_are_refused() -> None:
    made = pack()
    with pytest.raises(ValueError, match="expected"):
        read(made, np.full((3, 4), 0.25))
    with pytest.raises(ValueError, match="softmax"):
        read(made, np.full((len(made.questions()[1]), 4), 3.0))
