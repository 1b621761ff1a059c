"""Traces on disk: another config, code or data is another address; damage is as if nothing were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.audit.plan import Plan, settled
from experiments.audit.store import (
    PACKAGES,
    TraceStore,
    address,
    code_digest,
    data_digest,
    foundation,
    source_digest,
)
from experiments.audit.traces import Trace
from tests.support.audits import config


def trace() -> Trace:
    some = np.arange(6, dtype=np.float32).reshape(3, 2)
    one = np.array([0.5])
    counts = np.ones((2, 2), np.int64)
    empty = np.empty(0)
    work = np.zeros((3, 4), np.int64)
    return Trace(some, some, some, some, one, one, counts, one, empty, one, some, work)


def key(**changes: object) -> str:
    return address(foundation(settled(config(**changes))))


def test_what_is_put_is_what_is_got(tmp_path: Path) -> None:
    store, made = TraceStore(tmp_path), trace()
    assert store.get("ab12") is None
    store.put("ab12", made, {"unlearn": 1.5})
    found = store.get("ab12")
    assert found is not None
    for name, array in vars(made).items():
        again = getattr(found, name)
        assert again.dtype == array.dtype
        assert np.array_equal(again, array)
    assert store.seconds("ab12") == {"unlearn": 1.5}
    assert store.seconds("ffff") == {}


def test_equal_traces_have_equal_bytes() -> None:
    assert trace().to_bytes() == trace().to_bytes()
    other = replace(trace(), marker=np.array([0.25]))
    assert other.to_bytes() != trace().to_bytes()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_trace_is_none(tmp_path: Path, damage: str) -> None:
    store = TraceStore(tmp_path)
    store.put("ab12", trace(), {})
    path = store.path("ab12")
    raw = bytearray(path.read_bytes())
    if damage == "flipped":
        raw[raw.index(b"NUMPY") + 140] ^= 1  # in the first array's data
    new = {"cut": raw[:-40], "flipped": raw, "empty": b"", "foreign": b"no archive"}[damage]
    path.write_bytes(bytes(new))
    assert store.get("ab12") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 3},
        {"recovery": {"learning_rate": 0.2}},
        {"train": {"batch_size": 8}},
        {"model": {"hidden": 5}},
        {"marker": {"client": 1, "fraction": 0.5}},
        {"data": {"clients": 3, "limit": 110}},
        {"data": {"clients": 3, "limit": 120, "seed": 4}},
        {"requests": [{"scope": "client", "clients": [2]}]},
        {"engine": {"min_replies": 1.0}},
    ],
)
def test_another_config_is_another_address(changes: dict[str, object]) -> None:
    assert key(**changes) != key()


def test_how_work_is_done_is_not_in_the_address() -> None:
    assert key(engine={"grid": "local", "workers": 7}, strategies=["fed-eraser"]) == key()


def test_other_code_is_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.py").write_text("x = 1\n")
    before = code_digest(folder)
    # A fresh folder each time: a digest is taken once per process.
    for number, (name, text) in enumerate((("a.py", "x = 2\n"), ("inner/b.py", "x = 1\n"))):
        other = tmp_path / str(number) / "package"
        (other / "inner").mkdir(parents=True)
        (other / "a.py").write_text("x = 1\n")
        (other / name).write_text(text)
        assert code_digest(other) != before
    same = tmp_path / "same" / "package"
    same.mkdir(parents=True)
    (same / "a.py").write_text("x = 1\n")
    assert code_digest(same) == before
    usual = key()
    monkeypatch.setattr("experiments.audit.store.code_digest", lambda: "other")
    assert key() != usual


def test_all_four_packages_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, ...]] = []
    monkeypatch.setattr(
        "experiments.runs.versions._code_digest", lambda folders: seen.append(folders) or ""
    )
    code_digest()
    assert [folder.name for folder in seen[0]] == list(PACKAGES)
    assert all((folder / "__init__.py").is_file() for folder in seen[0])


def test_other_data_are_another_address(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 4)).astype(np.float32), np.arange(60) % 3
    digests = []
    for number in range(3):
        path = tmp_path / f"{number}.npz"
        changed = x.copy()
        changed[7, 1] += number == 2
        np.savez(path, x=changed, y=y)
        digests.append(data_digest(config(data={"name": f"npz:{path}", "clients": 3})))
    assert digests[0] == digests[1] != digests[2]


def test_a_module_of_the_users_own_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_audit_module.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = source_digest("own_audit_module")
    assert before
    (tmp_path / "own_audit_module.py").write_text("x = 2\n")
    assert source_digest("own_audit_module") != before
    assert source_digest("strategies.global_model.retrain") == ""


def test_options_move_their_strategy_alone() -> None:
    plain = settled(config(strategies=["no-t", "fed-eraser"]))
    set_ = settled(
        config(strategies=["no-t", "fed-eraser"], options={"fed-eraser": {"interval": 2}})
    )
    one, other = (Plan(c, ("no-t", "fed-eraser"), 3, "key").models() for c in (plain, set_))
    moved = {model.role for model in one if one[model] != other[model]}
    assert moved == {"fed-eraser"}
    assert len(set(one.values())) == len(one)
    third = Plan(plain, ("no-t", "fed-eraser"), 3, "another").models()
    assert not set(third.values()) & set(one.values())
