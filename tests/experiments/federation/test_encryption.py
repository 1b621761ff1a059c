"""A run that encrypts: the same model, no window of an update on disk, no key in the run folder."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from experiments.api.calls import open_run
from experiments.config.loading import Config
from experiments.federation import launch
from experiments.federation.keys import keys_of
from experiments.runs.admission import admit, compose
from experiments.runs.folder import RunFolder
from experiments.runs.inspection import verify
from experiments.runs.results import read_results
from experiments.runs.scan import Needles, scan
from tests.support.small import small
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, HistoryError
from unlearning.records import rewriting
from unlearning.records.past import Past
from unlearning.records.recording import RoundEntry
from unlearning.request import Request
from unlearning.weighing import Examples


def config(strategy: str = "fed-eraser", **history: object) -> Config:
    return small(strategy=strategy, rounds=3, model={"hidden": 8}, history=history)


def silent(tick: object) -> None:
    pass


class Seen:
    """The updates of the client that leaves, and what lay on disk just before it was deleted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.updates: list[bytes] = []
        self.hits_before = -1
        add, adopt = RoundEntry.add, rewriting.adopt

        def noted(entry: RoundEntry, client: int, examples: int | Examples, update: Arrays) -> None:
            if client == 2:
                self.updates += [np.ascontiguousarray(array).tobytes() for array in update.values()]
            add(entry, client, examples, update)

        def looked(past: Past, other: Past, request: Request | None) -> None:
            self.hits_before = self.hits(path)
            adopt(past, other, request)

        monkeypatch.setattr(RoundEntry, "add", noted)
        monkeypatch.setattr(rewriting, "adopt", looked)

    def hits(self, *roots: Path) -> int:
        needles = Needles(self.updates)
        assert len(needles) > 20
        return sum(one.count for one in scan(roots, needles)[0])


def test_a_run_encrypts_and_comes_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for name in ("plain", "locked"):
        keys = {"encrypt": True, "keys": str(tmp_path / "keys")} if name == "locked" else {}
        with monkeypatch.context() as patched:
            seen = Seen(patched, tmp_path / name)
            launch.run(config(**keys), tmp_path / name, observer=silent)
        assert (seen.hits_before > 0) == (name == "plain")
        assert seen.hits(tmp_path / name, tmp_path) == 0  # after deletion, encrypted or not
        _, rows = read_results(tmp_path / name)
        digests.append([row.model_digest for row in rows])
        assert verify(RunFolder(tmp_path / name)).problems == ()
    assert digests[0] == digests[1]
    run = tmp_path / "locked"
    keys = [path for path in (tmp_path / "keys").rglob("*.key") if path.name != "master.key"]
    assert keys
    assert not list(run.rglob("*-*.key"))
    assert not any(path.name.startswith("client-00002-") for path in keys)
    assert stat.S_IMODE((tmp_path / "keys" / "master.key").stat().st_mode) == 0o600
    moments = list(run.rglob("*.moment"))
    assert all(path.read_bytes().startswith(b"fedunl-1") for path in moments)


def test_the_master_key_is_read_from_environment_or_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = RunFolder(tmp_path / "run"), {"encrypt": True, "keys": str(tmp_path / "k")}
    assert keys_of(config(), folder) is None
    made = keys_of(config(**settings), folder)
    again = keys_of(config(**settings), folder)
    assert made == again
    (tmp_path / "k" / "master.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        keys_of(config(**settings), folder)
    monkeypatch.setenv("FEDUNLEARN_KEY", "ab" * 32)
    found = keys_of(config(**settings), folder)
    assert found is not None
    assert found.master == bytes.fromhex("ab" * 32)
    monkeypatch.setenv("FEDUNLEARN_KEY", "no key")
    with pytest.raises(ConfigError, match="FEDUNLEARN_KEY is no master key"):
        keys_of(config(**settings), folder)
    inside = {"encrypt": True, "keys": str(tmp_path / "run" / "keys")}
    with pytest.raises(ConfigError, match="a backup of it would hold the keys"):
        keys_of(config(**inside), folder)


def test_a_comparison_does_not_encrypt_and_says_so(tmp_path: Path) -> None:
    settings = config(encrypt=True, keys=str(tmp_path / "keys"))
    with pytest.raises(ConfigError, match=r"history\.encrypt is for `fedunlearn run`"):
        launch.compare(settings, tmp_path / "run", observer=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("harm", ["another master key", "no key folder"])
def test_a_run_with_other_keys_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """Its moments cannot be read then; to learn anew would destroy what the right key opens."""
    monkeypatch.setenv("FEDUNLEARN_KEY", "ab" * 32)
    keys = tmp_path / "keys"
    settings = config(encrypt=True, keys=str(keys)).model_copy(update={"requests": ()})
    folder = RunFolder(launch.run(settings, tmp_path / "run", observer=silent))
    admit(folder, compose(clients=[1], id="r"))
    if harm == "no key folder":
        keys.rename(tmp_path / "unmounted")
    else:
        monkeypatch.setenv("FEDUNLEARN_KEY", "cd" * 32)
    before = {path: path.read_bytes() for path in folder.histories.rglob("*.safetensors")}
    assert before
    with pytest.raises(HistoryError, match="nothing was changed"):
        open_run(folder.path).resume()
    assert {path: path.read_bytes() for path in before} == before
    with folder.open_ledger() as ledger:
        assert ledger.state("r") == "received"
    monkeypatch.setenv("FEDUNLEARN_KEY", "ab" * 32)
    if harm == "no key folder":
        keys.rmdir() if keys.exists() else None
        (tmp_path / "unmounted").rename(keys)
    open_run(folder.path).resume()
    with folder.open_ledger() as ledger:
        (done,) = [event for event in ledger.events("r") if event.event == "fulfilled"]
    assert done.facts["deleted"]["files"] > 0  # type: ignore[index]
