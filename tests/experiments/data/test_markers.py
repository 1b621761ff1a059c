"""Markers: what is planted, where, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.config.schema import MarkerConfig
from experiments.data.markers import misled, placed, plant, trigger
from unlearning.errors import ConfigError

RNG = np.random.default_rng(0)
IMAGES = RNG.random((50, 2, 6, 6)).astype(np.float32)
ROWS = RNG.random((50, 6)).astype(np.float32)
LABELS = np.arange(50) % 5


def marker(**changes: object) -> MarkerConfig:
    return MarkerConfig.model_validate({"client": 0, **changes})


def test_trigger_is_the_lower_right_corner_of_every_channel() -> None:
    out = trigger(IMAGES, marker(size=2, value=3.0))
    assert (out[:, :, 4:, 4:] == 3).all()
    out[:, :, 4:, 4:] = IMAGES[:, :, 4:, 4:]
    assert np.array_equal(out, IMAGES)


def test_trigger_of_a_table_is_its_last_columns() -> None:
    before = ROWS.copy()
    out = trigger(ROWS, marker(size=2, value=3.0))
    assert np.array_equal(ROWS, before)
    assert (out[:, 4:] == 3).all()
    assert np.array_equal(out[:, :4], ROWS[:, :4])


@pytest.mark.parametrize("x", [IMAGES, ROWS])
def test_backdoor_goes_to_a_share_of_the_other_labels(x: np.ndarray) -> None:
    before = x.copy(), LABELS.copy()
    chosen = marker(fraction=0.6, label=2, size=2)
    new_x, new_y, positions = plant(x, LABELS, chosen, 5, seed=1)
    assert len(positions) == 24  # 0.6 of the 40 whose label is not 2
    assert (np.diff(positions) > 0).all()
    assert (LABELS[positions] != 2).all()
    assert (new_y[positions] == 2).all()
    assert np.array_equal(new_x[positions], trigger(x[positions], chosen))
    others = np.setdiff1d(np.arange(50), positions)
    assert np.array_equal(new_x[others], x[others])
    assert np.array_equal(new_y[others], LABELS[others])
    assert np.array_equal(before[0], x)
    assert np.array_equal(before[1], LABELS)


def test_label_flip_moves_to_the_next_label() -> None:
    new_x, new_y, positions = plant(IMAGES, LABELS, marker(kind="label-flip", fraction=0.3), 5, 1)
    assert len(positions) == 15
    assert np.array_equal(new_x, IMAGES)
    assert np.array_equal(new_y[positions], (LABELS[positions] + 1) % 5)
    assert (new_y != LABELS).sum() == 15


def test_noise_is_added_to_inputs_alone() -> None:
    new_x, new_y, positions = plant(IMAGES, LABELS, marker(kind="noise", sigma=0.5), 5, seed=1)
    assert len(positions) == 40  # 0.8 of all
    assert np.array_equal(new_y, LABELS)
    others = np.setdiff1d(np.arange(50), positions)
    assert np.array_equal(new_x[others], IMAGES[others])
    noise = (new_x - IMAGES)[positions]
    assert abs(noise.std() - 0.5) < 0.03  # 2880 values: five standard errors
    assert abs(noise.mean()) < 0.05


def test_seed_decides_which() -> None:
    first, again, other = (plant(ROWS, LABELS, marker(), 5, seed).positions for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(
        plant(ROWS, LABELS, marker(), 5, [1, 2]).positions,
        plant(ROWS, LABELS, marker(), 5, [1, 2]).positions,
    )


def test_no_examples_no_marker() -> None:
    found = plant(ROWS[:0], LABELS[:0], marker(), 5, 0)
    assert found.x.shape == (0, 6)
    assert found.positions.size == 0


def test_mistakes() -> None:
    with pytest.raises(ConfigError, match=r"marker\.label = 5 .* 0 to 4"):
        plant(ROWS, LABELS, marker(label=5), 5, 0)
    with pytest.raises(ConfigError, match=r"marker\.size = 7"):
        plant(ROWS, LABELS, marker(size=7), 5, 0)
    with pytest.raises(ConfigError, match=r"marker\.size = 7"):
        trigger(IMAGES, marker(size=7))


def test_a_random_pattern_is_the_same_in_every_image_and_run() -> None:
    chosen = marker(size=3, value=3.0, pattern="random")
    out = trigger(IMAGES, chosen)
    patch = out[0, 0, 3:, 3:]
    assert set(np.unique(patch)) == {0.0, 3.0}
    assert (out[:, :, 3:, 3:] == patch).all()
    assert np.array_equal(out, trigger(IMAGES, chosen))


def test_a_live_patch_lies_where_examples_differ_most() -> None:
    x = np.zeros((20, 1, 6, 6), np.float32)
    x[:, 0, 1:3, 2:4] = RNG.random((20, 2, 2))
    chosen = placed(marker(size=2, at="live"), x)
    assert chosen.at == (1, 2)
    assert (trigger(x, chosen)[:, :, 1:3, 2:4] == 2).all()
    rows = np.zeros((20, 6), np.float32)
    rows[:, 2] = np.arange(20)
    assert placed(marker(size=1, at="live"), rows).at == (2,)


def test_a_place_is_the_first_pixel_and_lies_within_the_example() -> None:
    out = trigger(IMAGES, marker(size=2, value=3.0, at=[0, 4]))
    assert (out[:, :, :2, 4:] == 3).all()
    assert np.array_equal(out[:, :, 2:], IMAGES[:, :, 2:])
    for at, x in (([0, 5], IMAGES), ([0], IMAGES), ([5], ROWS)):
        with pytest.raises(ConfigError, match=r"marker\.at"):
            placed(marker(size=2, at=at), x)


def test_shifted_labels_go_half_way_round() -> None:
    chosen = marker(shift=2, fraction=0.6, size=2)
    _, new_y, positions = plant(IMAGES, LABELS, chosen, 5, seed=1)
    assert len(positions) == 30  # of all 50: every label changes
    assert (new_y[positions] == (LABELS[positions] + 2) % 5).all()
    assert misled(LABELS, chosen, 5).all()
    with pytest.raises(ConfigError, match=r"marker\.shift = 5 .* 0 to 4"):
        plant(ROWS, LABELS, marker(shift=5), 5, 0)
