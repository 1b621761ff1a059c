"""Partitions: everyone's share, the same for a seed, computed once, mistakes in words."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.data import partition as module
from experiments.data.partition import Partition, names, partition
from unlearning.errors import ConfigError

LABELS = np.random.default_rng(0).integers(0, 5, 400)
OWNER = np.repeat([2, 0, 1], [200, 150, 50])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def share(
    name: str = "iid",
    clients: int | None = 4,
    *,
    owner: NDArray[np.int64] | None = None,
    seed: int = 0,
    held_out: float = 0.0,
    **params: Any,
) -> Partition:
    return partition(LABELS, owner, clients, name, params, seed, held_out)


def flat(found: Partition) -> list[int]:
    parts = [*found.train.values(), *found.held_out.values()]
    return sorted(np.concatenate(parts).tolist())


EXAMPLES: dict[str, dict[str, Any]] = {
    "iid": {},
    "dirichlet": {"alpha": 0.5},
    "shard": {"num_shards_per_partition": 2},
    "pathological": {"num_classes_per_partition": 2, "class_assignment_mode": "deterministic"},
    "linear": {},
    "square": {},
    "exponential": {},
    "size": {"partition_sizes": [100, 100, 150, 50]},
    "inner-dirichlet": {"partition_sizes": [100, 100, 150, 50], "alpha": 0.5},
    "continuous": {"strictness": 0.5},
    "distribution": {
        "clients": 5,
        "distribution_array": [[0.5, 0.5]] * 5,
        "num_unique_labels_per_partition": 2,
        "preassigned_num_samples_per_label": 1,
    },
    "natural-id": {"clients": 3, "owner": OWNER},
    "grouped-natural-id": {"clients": 2, "owner": OWNER, "group_size": 2},
}


def test_names_are_found_by_walking_and_all_are_tried_below() -> None:
    assert set(names()) == EXAMPLES.keys()
    assert "alpha" in names()["dirichlet"]
    assert "seed" not in names()["dirichlet"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_partitioner_shares_out_each_example_once(name: str) -> None:
    settings = {"clients": 4, **EXAMPLES[name]}
    found = share(name, held_out=0.2, **settings)
    assert list(found.train) == list(range(settings["clients"]))
    positions = flat(found)
    assert len(positions) == len(set(positions))
    # Distribution rescales to the numbers it is given and may leave a few out.
    assert len(positions) == 400 if name != "distribution" else len(positions) > 300
    for train, held_out in zip(found.train.values(), found.held_out.values(), strict=True):
        assert len(train)
        assert train.dtype == held_out.dtype == np.int64
        assert (np.diff(train) > 0).all()
        assert len(held_out) == round(0.2 * (len(train) + len(held_out)))


def test_iid_is_shuffled_and_even() -> None:
    found = share()
    assert {len(train) for train in found.train.values()} == {100}
    assert all(train.max() - train.min() > 300 for train in found.train.values())


def test_dirichlet_is_uneven_and_follows_alpha() -> None:
    def spread(alpha: float) -> float:
        shares = share("dirichlet", alpha=alpha, min_partition_size=1).train.values()
        return float(
            np.std([np.bincount(LABELS[s], minlength=5) / len(s) for s in shares], 0).sum()
        )

    assert spread(0.2) > 2 * spread(100.0)


def test_same_seed_same_partition_other_seed_another() -> None:
    first, again, other = (share(seed=seed, held_out=0.2) for seed in (1, 1, 2))
    for client in first.train:
        assert np.array_equal(first.train[client], again.train[client])
        assert np.array_equal(first.held_out[client], again.held_out[client])
    assert not np.array_equal(first.train[0], other.train[0])


def test_seed_decides_what_is_held_out_and_how_uneven_shares_are() -> None:
    kept = [
        share("natural-id", None, owner=OWNER, seed=seed, held_out=0.2).held_out[0]
        for seed in (1, 2)
    ]
    assert not np.array_equal(*kept)
    sizes = [
        [len(part) for part in share("dirichlet", alpha=0.5, seed=seed).train.values()]
        for seed in (1, 2)
    ]
    assert sizes[0] != sizes[1]


def test_with_natural_id_the_owner_is_the_client(
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = share("natural-id", None, owner=OWNER)
    assert capfd.readouterr() == ("", "")
    assert [set(OWNER[found.train[client]]) for client in range(3)] == [{0}, {1}, {2}]


def test_held_out_leaves_one_example_for_training() -> None:
    found = share("iid", 400, held_out=0.9)
    assert {len(train) for train in found.train.values()} == {1}


def test_second_call_reads_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = share("dirichlet", alpha=0.5)
    (file,) = (cache / "partitions").iterdir()

    def refuse(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "_compute", refuse)
    again = share("dirichlet", alpha=0.5)
    assert all(np.array_equal(first.train[k], again.train[k]) for k in first.train)
    for changed in ({"seed": 1}, {"alpha": 0.6}, {"clients": 3}, {"owner": OWNER}):
        with pytest.raises(AssertionError, match="computed again"):
            share("dirichlet", **{"alpha": 0.5, **changed})
    monkeypatch.undo()
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(cache))
    file.write_bytes(file.read_bytes()[:100])
    repaired = share("dirichlet", alpha=0.5)
    assert all(np.array_equal(first.train[k], repaired.train[k]) for k in first.train)
    assert [path.name for path in (cache / "partitions").iterdir()] == [file.name]


def test_unwritable_cache_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "file"))
    assert len(share("dirichlet", alpha=0.5).train) == 4


@pytest.mark.parametrize("count", [1, 2, 7, 400])
@pytest.mark.parametrize("seed", [0, 5])
def test_equal_shares_are_those_of_the_partitioner(count: int, seed: int) -> None:
    theirs = module._compute(LABELS, None, count, "iid", {}, seed)
    own = share(clients=count, seed=seed).train
    assert len(own) == len(theirs)
    assert all(np.array_equal(own[client], one) for client, one in enumerate(theirs))


def test_equal_and_cached_shares_import_no_partitioner(cache: Path) -> None:
    import subprocess

    share("dirichlet", alpha=0.5)
    code = (
        "import sys, numpy as np\n"
        "from experiments.data.partition import partition\n"
        "labels = np.random.default_rng(0).integers(0, 5, 400)\n"
        "partition(labels, None, 4, 'iid', {}, 0, 0.0)\n"
        "partition(labels, None, 4, 'dirichlet', {'alpha': 0.5}, 0, 0.0)\n"
        "print([m for m in ('flwr_datasets', 'datasets', 'torch') if m in sys.modules])"
    )
    root = Path(module.__file__).resolve().parents[2]
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "dirichlett", "alpha": 1}, r"'dirichlett'; did you mean 'dirichlet'\?"),
        ({"name": "dirichlet", "alfa": 1}, r"'alfa'; did you mean 'alpha'\?"),
        ({"name": "iid", "clinets": 3}, r"'clinets'; did you mean 'clients'\?"),
        ({"name": "dirichlet"}, r"data\.alpha is missing"),
        ({"name": "dirichlet", "alpha": "x"}, "alpha=x"),
        ({"name": "dirichlet", "alpha": 1, "min_partition_size": 200}, "cannot share 400 examples"),
        ({"name": "natural-id", "clients": None}, "who owns each example"),
        ({"name": "natural-id", "owner": OWNER, "clients": 4}, r"set data\.clients = 3"),
        # Each of these would become clients of other numbers, and a request would hit another.
        ({"name": "natural-id", "owner": OWNER + 1, "clients": None}, "owner 0 has no training"),
        ({"name": "natural-id", "owner": 2 * OWNER, "clients": None}, "owner 1 has no training"),
        ({"name": "size", "partition_sizes": [200, 200]}, r"set data\.clients = 2"),
        ({"name": "iid", "clients": 401}, r"cannot share 400 examples.*data\.clients"),
        ({**EXAMPLES["distribution"], "clients": 4, "name": "distribution"}, "cannot share"),
        ({"name": "iid", "clients": None}, r"data\.clients is missing"),
        ({"name": "iid", "seed_": 3}, "'seed_'"),
    ],
)
def test_mistakes(settings: dict[str, Any], words: str, cache: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        share(**settings)
    assert "\n" not in str(caught.value)
