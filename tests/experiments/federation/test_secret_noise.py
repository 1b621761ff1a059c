"""Whoever sees all that a run sends and writes cannot compute the noise of what it releases."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Message

from experiments.federation import launch
from experiments.federation.grids import LocalGrid
from experiments.runs.results import read_failed
from strategies.federation import Federation
from strategies.global_model import fed_recovery, noise, sifu
from tests.support.small import small
from unlearning import arrays as named
from unlearning.arrays import Arrays
from unlearning.entropy import Noise

Released = tuple[str, Arrays, Arrays, float]  # by whom, without noise, with it, its sigma
SEEN = 64  # values of every released model that a guess must not come near
OPTIONS: dict[str, dict[str, Any]] = {
    "sifu": {"allow_drowning": True},
    "fed-recovery": {"noise_std": 0.05, "allow_drowning": True},
}


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[Released]:
    """Return a list that grows with every model that noise is added to."""
    found: list[Released] = []

    def watched(module: Any) -> Callable[..., Arrays]:
        def perturb(arrays: Arrays, std: float, generator: noise.Normal) -> Arrays:
            noisy = noise.perturb(arrays, std, generator)
            found.append((module.__name__.rpartition(".")[2], arrays, noisy, std))
            return noisy

        return perturb

    for module in (sifu, fed_recovery):
        monkeypatch.setattr(module, "perturb", watched(module))
    return found


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with the text and the bytes of every message and reply."""
    found: list[str] = []
    push, pull = LocalGrid.push_messages, LocalGrid.pull_messages

    def note(message: Message) -> Message:
        for record in message.content.values() if message.has_content() else ():
            for value in record.values():
                if not isinstance(value, Array):
                    found.append(str(value) if isinstance(record, ConfigRecord) else repr(value))
        return message

    monkeypatch.setattr(LocalGrid, "push_messages", lambda g, m: push(g, [*map(note, m)]))
    monkeypatch.setattr(LocalGrid, "pull_messages", lambda g, m: [*map(note, pull(g, m))])
    return found


def texts(folder: Path) -> Iterator[str]:
    """Yield what every file of a folder says, its bytes read as letters."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes().decode("latin-1")


def addresses(said: Iterable[str]) -> set[tuple[int, ...]]:
    """Return every list of whole numbers, and every single one, that is said anywhere."""
    found: set[tuple[int, ...]] = set()
    for text in said:
        for inside in re.findall(r"\[([\d,\s]+)\]", text):
            numbers = [int(one) for one in re.findall(r"\d+", inside)][:8]
            found |= {tuple(numbers[:end]) for end in range(1, len(numbers) + 1)}
        found |= {(int(one),) for one in re.findall(r"(?<![\d.])\d{1,12}(?![\d.])", text)}
    return found


def keys(said: Iterable[str]) -> set[bytes]:
    """Return every 256 bits that are said in hexadecimal, and those in short words."""
    hexadecimal = {one for text in said for one in re.findall(r"\b[0-9a-f]{64}\b", text)}
    return {bytes.fromhex(one) for one in hexadecimal} | {one.encode() for one in hexadecimal}


def near(streams: Iterable[np.ndarray], released: list[Released]) -> bool:
    """Return whether one of the guesses takes a released model back to what it was."""
    guesses = np.array(list(streams))
    for _, before, after, std in released:
        first = next(iter(named.parameters(before)))
        clean, noisy = (a[first].ravel()[:SEEN].astype(np.float64) for a in (before, after))
        left = np.abs(noisy - std * guesses[:, : len(clean)] - clean).max(axis=1)
        if len(left) and float(left.min()) <= std / 10:
            return True
    return False


def by_address(found: Iterable[tuple[int, ...]]) -> Iterator[np.ndarray]:
    """Yield the streams of addresses, as they are and with a constant behind them."""
    for address in sorted(found):
        for more in ((), *((constant,) for constant in range(10))):
            yield np.random.default_rng([*address, *more]).standard_normal(SEEN)


def by_key(found: Iterable[bytes]) -> Iterator[np.ndarray]:
    """Yield the streams of keys, for every address that noise is drawn for here."""
    for key in sorted(found):
        for purpose in OPTIONS:
            for served in (1, 2):
                yield Noise(key, f"{purpose}|0|3|{served}").standard_normal(SEEN)


def run(out: Path) -> Path:
    requests = [{"scope": "client", "clients": [1]}]
    config = small(rounds=3, requests=requests, options=OPTIONS)
    return launch.compare(config, out, strategies=tuple(OPTIONS), observer=lambda tick: None)


@pytest.mark.parametrize("planted", [False, True], ids=["entropy", "planted-seed"])
def test_nothing_that_a_run_sends_or_writes_gives_the_noise_back(
    planted: bool,
    released: list[Released],
    sent: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: noise from the scenario's seed and round, as it once was, is found out."""
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    if planted:
        monkeypatch.setattr(
            Federation,
            "secret_noise",
            lambda self, purpose: np.random.default_rng([self.seed, self.completed, 3]),
        )
    out = run(tmp_path / "run")
    assert not read_failed(out)
    assert {by for by, *_ in released} == {"sifu", "fed_recovery"}
    assert sent
    said = [*sent, *texts(out), *texts(tmp_path / "cache"), json.dumps(dict(os.environ))]
    guessed = near(by_address(addresses(said)), released)
    assert guessed is planted
    assert not near(by_key(keys(said)), released)
