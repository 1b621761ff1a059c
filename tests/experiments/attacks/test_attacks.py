"""Every attack on a federation of six clients that learns in a second; figures are recorded apart.

What is asserted is the contrast: without the defence the attack gets somewhere, with it not.
"""

import csv
import importlib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import attacks
from experiments.attacks import stage
from experiments.attacks.gradient_inversion import drawn, likeness
from experiments.attacks.label_inference import guess
from experiments.attacks.trial import Trial, summary, write_csv
from experiments.cli import app
from unlearning.errors import ConfigError


def names():
    return sorted(attacks.attacks())


def small(monkeypatch, name, *, rounds=6, **constants):
    """Let an attack run on less, and return its trials by variant and defence."""
    module = importlib.import_module(f"experiments.attacks.{name.replace('-', '_')}")
    usual = stage.settings

    def settings(seed, guard=None, **changes):
        less = {
            "rounds": rounds,
            "recovery_rounds": 2,
            "data": {"name": "digits", "clients": 6, "limit": 600},
            "train": {"local_epochs": 2, "batch_size": 32, "learning_rate": 0.2},
        }
        return usual(seed, guard, **{**less, **changes})

    monkeypatch.setattr(module, "settings", settings)
    for key, value in constants.items():
        monkeypatch.setattr(module, key, value)
    found = attacks.run(name, [0], "both")
    assert all(trial.attack == name for trial in found)
    return {(trial.variant, trial.defence): trial for trial in found}


def test_attacks_are_found_by_walking():
    assert names() == [
        "camouflaged-backdoor",
        "class-poisoning",
        "duplicates",
        "gradient-inversion",
        "label-inference",
        "over-unlearning",
        "poisoned-recovery",
        "slow-burst",
        "unknown-samples",
    ]
    for entry in attacks.describe():
        assert str(entry["defence"]).startswith("guard.")
        assert str(entry["attack"]).endswith(".")


@pytest.mark.parametrize(("name", "defence"), [("unkown-samples", "on"), ("duplicates", "maybe")])
def test_a_misspelt_name_is_answered_with_the_known_ones(name, defence):
    with pytest.raises(ConfigError, match="known: "):
        attacks.run(name, [0], defence)


def test_unknown_samples(monkeypatch):
    found = small(monkeypatch, "unknown-samples", _HONEST=40)
    for variant in ("unknown ids, noise", "other content", "right claim, other content later"):
        assert found[variant, "off"].success > 0.5
        assert found[variant, "on"].success == 0
        assert found[variant, "on"].stopped
    assert found["unknown ids, noise", "on"].note == "no work done"
    assert found["right claim, other content later", "on"].note == "held"
    honest = found["honest requests", "on"]
    assert (honest.honest, honest.false_refusals, honest.clean_cost) == (40, 0, 0.0)


def test_poisoned_recovery(monkeypatch):
    found = small(monkeypatch, "poisoned-recovery", _STRATEGIES={"retrain": {}})
    assert found["retrain", "off"].success > 0.5
    for how in ("median", "trimmed-mean"):
        assert found["retrain", how].success < 0.2


def test_over_unlearning(monkeypatch):
    found = small(
        monkeypatch, "over-unlearning", _HONEST={"gradient-ascent": ({}, 2, ("step 0.01",))}
    )
    off, held = found["class 3", "off"], found["class 3", "class drop 0.5"]
    assert off.success > 0.5
    assert (held.success, held.stopped) == (0, True)
    assert found["class 3", "step 0.01"].success < off.success
    assert found["honest, gradient-ascent", "step 0.01"].honest == 2


def test_duplicates(monkeypatch):
    variants = {"no copies": (0.0, 0.0), "all": (1.0, 0.0), "near": (1.0, 1e-3)}
    found = small(monkeypatch, "duplicates", _VARIANTS=variants)
    assert found["no copies", "off"].success < 0.3
    assert found["all", "off"].success > 0.5
    assert found["all", "off"].note == "nothing said"
    planted = found["all", "on"].note.rpartition(" planted")[0].rpartition(" ")[2]
    assert found["all", "on"].note == f"{planted} of {planted} found, {planted} planted"
    assert found["near", "on"].note.startswith("0 of")
    assert found["no copies", "on"].false_refusals == 0


def test_label_inference(monkeypatch):
    strategies = {"gradient-ascent": ({}, (4,))}
    found = small(monkeypatch, "label-inference", _STRATEGIES=strategies, _TARGETS=4)
    assert found["gradient-ascent", "off"].success >= 0.75
    assert ("gradient-ascent", "batch 4") in found
    assert found["gradient-ascent, alone", "batch 4"].stopped


def test_the_guess_is_the_class_whose_bias_fell_most():
    before = {"a.weight": np.zeros((3, 2)), "a.bias": np.zeros(3)}
    after = {"a.weight": np.ones((3, 2)), "a.bias": np.array([0.1, -0.3, -0.2])}
    assert guess(before, after) == 1


def test_camouflaged_backdoor(monkeypatch):
    strategies = {"retrain": {}}
    found = small(monkeypatch, "camouflaged-backdoor", rounds=12, _STRATEGIES=strategies)
    off, on = found["retrain", "off"], found["retrain", "on"]
    assert off.success > 0.8
    assert on.stopped
    assert on.success < 0.3


def test_class_poisoning(monkeypatch):
    constants = {"_STRATEGIES": {"retrain": {}}, "_HONEST": 1}
    found = small(monkeypatch, "class-poisoning", _ATTACKER=3, **constants)
    off, on = found["retrain", "off"], found["retrain", "on"]
    assert off.success > 0.5
    assert (on.success, on.stopped) == (0, True)
    assert off.accuracy > 0.5  # the other classes hardly tell
    assert on.honest == 1


def test_gradient_inversion(monkeypatch):
    strategies = {"gradient-ascent": ({}, (4,))}
    found = small(monkeypatch, "gradient-inversion", _STRATEGIES=strategies, _TARGETS=4)
    off, on = found["gradient-ascent", "off"], found["gradient-ascent", "batch 4"]
    assert off.success == 1
    assert off.note == "mean correlation with the forgotten image 1.00"
    assert on.success < 0.6


def test_one_step_of_a_layer_is_the_input_times_that_of_its_bias():
    x, error = np.array([0.2, -1.0, 3.0]), np.array([0.5, -2.0])
    before = {"a": np.ones((2, 3)), "b": np.ones(2), "c": np.ones((4, 2))}
    after = {**before, "a": before["a"] - np.outer(error, x), "b": before["b"] - error}
    np.testing.assert_allclose(drawn(before, after), x)
    assert not drawn(before, before).any()
    near = likeness(x, np.stack([x[::-1], 5 * x + 2, np.ones(3)]))
    assert near.argmax() == 1
    np.testing.assert_allclose(near[1:], [1, 0], atol=1e-12)


def test_slow_burst(monkeypatch):
    found = small(monkeypatch, "slow-burst", _HONEST=2)
    alone, together = found["class 3", "class drop 0.3"], found["class 3", "total drop 0.3"]
    assert (alone.success > 0.5, alone.stopped) == (True, False)
    assert together.stopped
    assert together.success < alone.success
    assert found["honest", "total drop 0.3"].honest == 2


# --- what is told ---------------------------------------------------------------------------------


def trial(seed, success, **rest):
    return Trial("a", "v", seed, "on", success, **rest)


def test_trials_are_summed_up_per_variant_and_defence():
    rest = {"accuracy": 0.9, "honest": 10, "false_refusals": 1, "clean_cost": 0.01}
    lines = summary([trial(0, 0.0, stopped=True, **rest), trial(1, 1.0, **rest)])
    assert lines == [
        {
            "attack": "a",
            "variant": "v",
            "defence": "on",
            "seeds": 2,
            "success": "0.500 (0.00-1.00)",
            "stopped": "1 of 2",
            "accuracy": "0.900",
            "clean_cost": "0.010",
            "false_refusals": "2 of 20",
            "note": "",
        }
    ]


def test_every_trial_is_written(tmp_path):
    write_csv(tmp_path / "a.csv", [trial(0, 1 / 3, note="so, it is")])
    (row,) = csv.DictReader((tmp_path / "a.csv").read_text().splitlines())
    assert row["success"] == "0.333333"
    assert row["accuracy"] == ""
    assert row["note"] == "so, it is"


def test_the_command_line_runs_an_attack(monkeypatch, tmp_path):
    def run(name, seeds, defence, tell):
        tell(trial(seeds[0], 0.5))
        return [trial(seed, 0.5) for seed in seeds]

    monkeypatch.setattr(attacks, "run", run)
    out = tmp_path / "trials.csv"
    found = CliRunner().invoke(
        app, ["attack", "duplicates", "--seeds", "0,1", "--out", str(out), "--json"]
    )
    assert found.exit_code == 0, found.output
    assert '"success": "0.500 (0.50-0.50)"' in found.stdout
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["duplcates"], "unknown attack 'duplcates'; did you mean 'duplicates'"),
        (["duplicates", "--seeds", "x"], "--seeds is 'x'"),
        (["duplicates", "--out", "nowhere/x.csv"], "the folder nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(words, said):
    found = CliRunner().invoke(app, ["attack", *words])
    assert found.exit_code == 2
    assert said in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_the_recorded_trials_are_those_of_today():
    """Every attack, in both arms, over three seeds or more."""
    path = Path(attacks.__file__).parents[1] / "results" / "attacks.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == [column.name for column in fields(Trial)]
    assert sorted({row["attack"] for row in rows}) == names()
    for name in names():
        mine = [row for row in rows if row["attack"] == name]
        assert len({row["seed"] for row in mine}) >= 3
        assert {row["defence"] == "off" for row in mine} == {True, False}
