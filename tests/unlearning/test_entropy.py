"""Noise from a key: its law, its secrecy, and the file that holds a key."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from strategies.global_model.noise import perturb
from unlearning import arrays as named
from unlearning.entropy import Noise, Vault
from unlearning.errors import HistoryError

NARROW = 1e-6  # quantiles that a right draw leaves once in a million


def test_values_are_standard_normal_and_independent():
    values = Noise(b"a fixed key, so that this cannot fail by chance").standard_normal(200_000)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    halves = values[: 1 << 16].reshape(2, -1)  # cosines and sines of the same pairs
    assert abs(np.corrcoef(halves)[0, 1]) < 0.02
    assert np.isfinite(values).all()


def test_a_stream_does_not_depend_on_how_it_is_cut():
    whole = Noise(b"k").standard_normal(150_000)
    noise = Noise(b"k")
    parts = [noise.standard_normal(size) for size in (1, 70_000, 0, 79_999)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_an_address_makes_another_stream():
    one, two = (Noise(b"k", address).standard_normal(9) for address in ("a", "b"))
    assert np.abs(one - two).max() > 0.1


@pytest.mark.parametrize("std", [0.01, 2.0])
def test_released_noise_has_the_length_that_was_promised(std):
    """Equal before, different after: |difference|^2 / (2 sigma^2) and |noise|^2 / sigma^2."""
    model = {"w": np.full(50_000, 3.0, np.float64), "b": np.zeros(7)}
    size = 50_007
    low, high = stats.chi2.ppf([NARROW, 1 - NARROW], size)
    one, two = (perturb(model, std, Noise()) for _ in range(2))
    for released in (one, two):
        assert low < named.norm(named.subtract(released, model)) ** 2 / std**2 < high
    assert low < named.norm(named.subtract(one, two)) ** 2 / (2 * std**2) < high


def _draw(queue: multiprocessing.queues.SimpleQueue[list[float]]) -> None:
    queue.put(Noise().standard_normal(4).tolist())


def test_forked_processes_draw_different_noise():
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    workers = [context.Process(target=_draw, args=(queue,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert found[0] != found[1]


def test_a_vault_survives_a_restart_and_destroys_an_epoch(tmp_path: Path):
    path = tmp_path / "state" / "noise.key"
    vault = Vault(path)
    first, second = vault.key(0), vault.key(1)
    assert first != second
    assert len(first) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Vault(path).key(0) == first
    vault.destroy(before=1)
    assert first.hex() not in path.read_text()
    again = Vault(path)
    assert again.key(1) == second
    assert again.key(0) != first
    assert [entry.name for entry in path.parent.iterdir()] == ["noise.key"]
    assert first.hex() not in repr(vault)


def test_a_damaged_vault_is_an_error_in_words(tmp_path: Path):
    path = tmp_path / "noise.key"
    path.write_text("{not json")
    with pytest.raises(HistoryError, match="cannot be read"):
        Vault(path).key(0)
