"""The guard of a run, on digits that fit into a second; and a run that is guarded, end to end."""

import json
import tomllib

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config.loading import from_mapping, to_toml
from experiments.config.schema import GuardConfig
from experiments.federation.guard import (
    Watchman,
    battery,
    canaries,
    check_fits,
    robust_of,
    watchman_of,
)
from experiments.federation.launch import compare, run
from experiments.federation.task import Examples, Scenario, task
from experiments.runs.details import read_details
from experiments.runs.folder import RunFolder
from experiments.runs.inspection import overview
from experiments.runs.results import read_results
from tests.support.undrawn import undrawn
from unlearning.arrays import digest
from unlearning.errors import ConfigError, RequestError
from unlearning.records.commitment import Commitment
from unlearning.records.ledger import Ledger
from unlearning.request import Guarantee, Request, Scope

SMALL = {
    "rounds": 3,
    "recovery_rounds": 1,
    "device": "cpu",
    "data": {"name": "digits", "clients": 3, "limit": 150},
    "engine": {"grid": "local"},
    "strategy": "fine-tune",
}
SAMPLES = Request(Scope.SAMPLE, samples={1: (0, 2)})


@pytest.fixture(scope="module")
def small():
    return task(Scenario.of(from_mapping(SMALL)))


def models(small):
    """Return a model that knows the digits a little, and one that takes everything for a 3."""
    before = small.initial()
    after = dict(before)
    last = [name for name, array in before.items() if array.ndim == 1][-1]
    after[last] = before[last] + 100 * (np.arange(10) == 3).astype(np.float32)
    return before, after


def test_nothing_is_guarded_unless_asked_for(small):
    assert watchman_of(GuardConfig(), small, {}) is None
    assert robust_of(GuardConfig()) is None
    assert robust_of(GuardConfig(aggregate="median")).how == "median"


def test_what_the_guard_sees_is_not_what_it_is_judged_by(small):
    seen, rest = canaries(small, 0.5)
    test = small.test_set()
    rows = {row.tobytes() for row in seen.x}
    assert len(seen.y) + len(rest.y) == len(test.y)
    assert not any(row.tobytes() in rows for row in rest.x)
    again, _ = canaries(small, 0.5)
    assert (again.x == seen.x).all()


def test_an_answer_that_loses_a_class_is_held(small):
    before, after = models(small)
    guard = Watchman(GuardConfig(max_class_drop=0.1), small)
    found = guard.inspect(SAMPLES, Guarantee.APPROXIMATE, before, after)
    assert len(found.reasons) == 1
    assert "takes the accuracy of class" in found.reasons[0]
    assert "guard.max_class_drop = 0.1" in found.reasons[0]
    assert set(found.facts["class_falls"]) == {str(label) for label in range(10)}
    same = guard.inspect(SAMPLES, Guarantee.APPROXIMATE, before, before)
    assert same.reasons == ()


def test_a_class_that_was_asked_for_may_fall(small):
    before, after = models(small)
    guard = Watchman(GuardConfig(max_class_drop=0.1), small)
    every = Request(Scope.CLASS, classes=tuple(range(9)))
    lost = guard.inspect(SAMPLES, Guarantee.EXACT, before, after).facts["class_falls"]
    fallen = {int(label) for label, fall in lost.items() if fall > 0.1}
    assert fallen
    assert fallen <= set(range(9))
    assert guard.inspect(every, Guarantee.EXACT, before, after).reasons == ()


def test_only_approximate_answers_are_bounded(small):
    before, after = models(small)
    guard = Watchman(GuardConfig(max_step=0.01), small)
    exact = guard.inspect(SAMPLES, Guarantee.EXACT, before, after)
    assert exact.arrays is after
    bound = guard.inspect(SAMPLES, Guarantee.APPROXIMATE, before, after)
    assert digest(bound.arrays) not in (digest(before), digest(after))
    assert bound.facts["step"]["share"] > 0.01
    assert bound.reasons == ()


def test_a_trigger_that_wakes_up_is_named(small):
    """A first layer that listens to the lower right corner alone, and calls it a 7."""
    before = {name: np.zeros_like(array) for name, array in small.initial().items()}
    first, bias, last, _ = before
    after = {name: array.copy() for name, array in before.items()}
    after[first][0, 63] = 1.0  # of 8x8 pixels
    after[bias][0] = -1.5  # no white pixel is enough
    after[last][7, 0] = 1.0
    guard = Watchman(GuardConfig(max_trigger=0.4), small)
    found = guard.inspect(SAMPLES, Guarantee.EXACT, before, after)
    assert found.facts["triggers"]["class"] == 7
    assert found.facts["triggers"]["rate"] == 1.0
    assert "1 wide, 2, lower right" in found.reasons[0]
    asleep = guard.inspect(SAMPLES, Guarantee.EXACT, after, after)
    assert asleep.reasons == ()  # it worked before: that is no work of this answer


def test_the_battery_reaches_every_corner():
    found = dict(battery(np.zeros((1, 1, 8, 8), np.float32)))
    one = {name: np.argwhere(x[0, 0]) for name, x in found.items() if name.startswith("1 wide, 1")}
    assert {tuple(place[0]) for place in one.values()} == {(7, 7), (7, 0), (0, 7), (0, 0)}
    assert {int(name[0]) for name in found} == {1, 2, 3}  # not half of the image
    rows = dict(battery(np.zeros((1, 5), np.float32)))
    assert rows["2 wide, 2, first"].tolist() == [[2, 2, 0, 0, 0]]
    assert rows["2 wide, 2, last"].tolist() == [[0, 0, 0, 2, 2]]


def test_who_committed_to_nothing_is_refused_before_any_work(small):
    guard = Watchman(GuardConfig(commitment=True), small, {1: Commitment("00", 2)})
    guard.check(Request(Scope.SAMPLE, samples={1: (0, 1)}))
    guard.check(Request(Scope.CLASS, classes=(1,)))
    with pytest.raises(RequestError, match="sample 2 of client 1 was never trained on"):
        guard.check(Request(Scope.SAMPLE, samples={1: (0, 2)}))
    for unknown in (Request(Scope.CLIENT, clients=(7,)), Request(Scope.SAMPLE, samples={7: (0,)})):
        with pytest.raises(RequestError, match=r"client 7 committed itself to nothing .*known: 1"):
            guard.check(unknown)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"aggregate": "median"}, "guard.aggregate = 'median'"),
        ({"max_class_drop": 0.1}, "guard.max_class_drop looks at a network"),
        ({"max_trigger": 0.1}, "guard.max_trigger looks at a network"),
    ],
)
def test_what_is_no_network_cannot_be_guarded_so(settings, words):
    config = from_mapping({**SMALL, "model": {"name": "ridge"}})
    with pytest.raises(ConfigError, match=words):
        check_fits(GuardConfig(**settings), task(Scenario.of(config)), None)


def test_a_comparison_cannot_wait_for_more_requests(small):
    check_fits(GuardConfig(batch=5), small, None)
    with pytest.raises(ConfigError, match=r"guard.batch = 2 but .* only the 1 request"):
        check_fits(GuardConfig(batch=2), small, 1)
    check_fits(GuardConfig(max_requests=1), small, None)
    with pytest.raises(ConfigError, match=r"guard.max_requests = 1 and a comparison answers all 2"):
        check_fits(GuardConfig(max_requests=1), small, 2)


# --- end to end -----------------------------------------------------------------------------------


def ran(path, guard, strategy="fine-tune", samples="[0, 2]", rounds=3):
    config = from_mapping(
        {
            **SMALL,
            "rounds": rounds,
            "strategy": strategy,
            "guard": guard,
            "requests": [{"scope": "sample", "clients": [1], "samples": json.loads(samples)}],
        }
    )
    assert from_mapping(tomllib.loads(to_toml(config))) == config
    return RunFolder.open(run(config, path / "run", observer=lambda tick: None))


def test_a_held_answer_is_told_and_released(tmp_path):
    folder = ran(tmp_path, {"max_class_drop": 0.01}, "no-t")
    with Ledger(folder.ledger) as ledger:
        assert ledger.state("config-1") == "held"
        ledger.verify()
    line = overview(folder).lines()[-1]
    assert "held because it takes the accuracy of class" in line
    assert f"`fedunlearn release {folder.path} config-1`" in line
    found = CliRunner().invoke(app, ["status", str(folder.path)])
    assert "held because" in found.stdout
    found = CliRunner().invoke(app, ["release", str(folder.path), "config-1"])
    assert found.exit_code == 0, found.output
    with Ledger(folder.ledger) as ledger:
        assert ledger.state("config-1") == "waiting"
    again = CliRunner().invoke(app, ["release", str(folder.path), "config-1"])
    assert again.exit_code == 2
    assert "it is waiting, not held" in again.stderr


def test_a_held_answer_is_no_row_of_a_comparison(tmp_path, monkeypatch):
    undrawn(monkeypatch.setattr)
    config = from_mapping(
        {
            **SMALL,
            "guard": {"max_class_drop": 0.01},
            "requests": [{"scope": "client", "clients": [1]}],
        }
    )
    out = compare(config, tmp_path / "run", strategies=["no-t"], observer=lambda tick: None)
    _, rows = read_results(out)
    assert [row.strategy for row in rows] == ["original", "retrain", "fine-tune"]
    (refused,) = read_details(out).refused
    assert refused.strategy == "no-t"
    assert "held by the guard: it takes the accuracy of class" in refused.reason


def test_a_claim_opens_what_was_trained_on_and_nothing_else(tmp_path):
    folder = ran(tmp_path, {"commitment": True, "duplicates": True})
    facts = folder.read_federation()
    assert sorted(facts.commitments) == [0, 1, 2]
    with Ledger(folder.ledger) as ledger:
        assert ledger.events("config-1")[-1].facts["duplicates"]["copies"] == 0
    claim = tmp_path / "claim.json"
    ask = ["request", folder.path, "--client", 2, "--samples", "1,3", "--id", "mine"]

    def call(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    bare = call(*ask)
    assert bare.exit_code == 2
    assert "takes requests for samples with a claim only" in bare.stderr
    made = call("claim", folder.path, "--client", 2, "--samples", "1,3", "--out", claim)
    assert made.exit_code == 0, made.output
    forged = json.loads(claim.read_text())
    forged["2"]["1"]["leaf"] = forged["2"]["3"]["leaf"]
    claim.with_suffix(".forged").write_text(json.dumps(forged))
    wrong = call(*ask, "--claim", claim.with_suffix(".forged"))
    assert wrong.exit_code == 2
    assert "is not the one that was trained on" in wrong.stderr
    with Ledger(folder.ledger) as ledger:
        assert [one.id for one in ledger.requests()] == ["config-1"]
    assert call(*ask, "--claim", claim).exit_code == 0
    beyond = call("claim", folder.path, "--client", 2, "--samples", "999", "--out", claim)
    assert "unknown sample 999 of client 2" in beyond.stderr


def test_the_salt_goes_when_the_client_goes(tmp_path, monkeypatch):
    undrawn(monkeypatch.setattr)
    config = from_mapping(
        {
            **SMALL,
            "guard": {"commitment": True},
            "requests": [{"scope": "client", "clients": [1]}],
        }
    )
    folder = RunFolder.open(run(config, tmp_path / "run", observer=lambda tick: None))
    left = {path.parent.name for path in folder.homes.rglob("salt")}
    assert left == {"client-00000", "client-00002"}
    gone = CliRunner().invoke(
        app,
        [
            "claim",
            str(folder.path),
            "--client",
            "1",
            "--samples",
            "0",
            "--out",
            str(tmp_path / "c"),
        ],
    )
    assert gone.exit_code == 2
    assert "has no salt any more" in gone.stderr


def test_what_many_answers_take_together_is_held_and_a_copy_goes_its_own_way(monkeypatch):
    import copy

    from experiments.federation import guard as module

    labels = np.zeros(10, np.int64)
    seen = Examples(np.zeros((10, 1), np.float32), labels)
    monkeypatch.setattr(module, "canaries", lambda task, share: (seen, seen))
    watch = Watchman(GuardConfig(max_total_drop=0.3), task=None)  # type: ignore[arg-type]
    # A model is how many of the ten canaries it gets right.
    monkeypatch.setattr(
        Watchman, "_labels", lambda self, arrays, x: (np.arange(10) >= arrays["right"]).astype(int)
    )
    asked = Request(Scope.SAMPLE, samples={0: (1,)})

    def step(watch, before, after, request=asked):
        found = watch.inspect(request, Guarantee.APPROXIMATE, {"right": before}, {"right": after})
        return found.reasons

    assert not step(watch, 9, 8)
    twin = copy.copy(watch)
    assert not step(watch, 8, 7)
    (reason,) = step(watch, 7, 5)  # 0.9 was the best
    assert "0.40 below its best" in reason
    assert "max_total_drop" in reason
    assert not step(twin, 8, 6)
    gone = Request(Scope.CLASS, classes=(0,))
    assert not step(twin, 6, 0, gone)  # it was asked for, and counts no more
    assert not twin.best
    again = module.watchman_of(GuardConfig(max_total_drop=0.3), None, {}, told={"0": 0.9})
    assert step(again, 6, 5)
