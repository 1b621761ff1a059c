"""Distillation at the server: the loss, and a student that takes after its teacher."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from experiments.config.loading import from_mapping
from experiments.federation.distil import distil, distillation_loss
from experiments.federation.task import Scenario, Task
from experiments.models import networks as models
from unlearning import arrays as named

SETTINGS = {
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 0.05,
    "momentum": 0.9,
    "temperature": 3.0,
    "hard_share": 0.0,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Task:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDUNLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = {"clients": 3, "limit": 300, "public": 0.4}
        return Task(Scenario.of(from_mapping({"data": data, "model": {"hidden": 8}})))


@pytest.fixture(scope="module")
def teacher(made):
    """Return a model with strong opinions."""
    arrays = named.copy(made.initial())
    return {name: array * 4 for name, array in arrays.items()}


def student_of(made):
    return {name: array * -1 for name, array in made.initial().items()}


def test_loss_of_one_example_is_the_papers():
    """Student logits (0, 2 ln 3), teacher (2 ln 4, 0), t = 2: softened (1/4, 3/4), (4/5, 1/5).

    KL = 0.8 ln(0.8 / 0.25) + 0.2 ln(0.2 / 0.75), times t^2 = 4. Hard: the teacher's choice is the
    first class, to which the student itself gives 1 / (1 + 9) = 0.1, so its cross-entropy is
    ln 10. With a = 0.25 the loss is 3/4 of the one and 1/4 of the other.
    """
    student = torch.tensor([[0.0, 2 * np.log(3)]], dtype=torch.float64)
    teacher = torch.tensor([[2 * np.log(4), 0.0]], dtype=torch.float64)
    kl = 0.8 * np.log(0.8 / 0.25) + 0.2 * np.log(0.2 / 0.75)
    soft = distillation_loss(student, teacher, temperature=2.0, hard_share=0.0)
    assert float(soft) == pytest.approx(4 * kl, rel=1e-12)
    mixed = distillation_loss(student, teacher, temperature=2.0, hard_share=0.25)
    assert float(mixed) == pytest.approx(0.75 * 4 * kl + 0.25 * np.log(10), rel=1e-12)
    twice = distillation_loss(
        student.repeat(2, 1), teacher.repeat(2, 1), temperature=2.0, hard_share=0.25
    )
    assert float(twice) == pytest.approx(float(mixed), rel=1e-12)
    same = distillation_loss(teacher, teacher, temperature=2.0, hard_share=0.0)
    assert float(same) == pytest.approx(0.0, abs=1e-12)


def test_the_student_comes_to_agree_with_the_teacher(made, teacher):
    student = student_of(made)
    taught, examples = distil(made, "cpu", student, teacher, SETTINGS, (0, 5, 0, 4))
    assert examples == 4 * 120
    x = made.test_set().x
    wanted, before, after = (made.predict(a, x).argmax(1) for a in (teacher, student, taught))
    assert (after == wanted).mean() > (before == wanted).mean() + 0.3
    assert named.mismatch(student, taught) is None


def test_one_step_on_everything_is_a_step_down_the_loss(made, teacher, monkeypatch):
    """One batch of all 120 public examples: w - rate * gradient, from the student on.

    It is taken on one thread, however many there are: sums over threads depend on their number.
    """
    threads = torch.get_num_threads()
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    student = student_of(made)
    settings = {**SETTINGS, "epochs": 1, "batch_size": 120, "hard_share": 0.3}
    taught, examples = distil(made, "cpu", student, teacher, settings, (0,))
    monkeypatch.undo()
    assert torch.get_num_threads() == threads
    assert seen == [1, 7]
    assert examples == 120

    model, x = made.fresh_model(0), torch.from_numpy(made.public_set())
    answers = models.load(model, teacher)(x).detach()
    models.load(model, student)
    loss = distillation_loss(model(x), answers, temperature=3.0, hard_share=0.3)
    slopes = torch.autograd.grad(loss, list(model.parameters()))
    for (name, w), slope in zip(model.named_parameters(), slopes, strict=True):
        np.testing.assert_allclose(taught[name], (w - 0.05 * slope).detach(), rtol=1e-4, atol=1e-6)


def test_inputs_and_generators_are_left_alone(made, teacher):
    student = student_of(made)
    digests = [named.digest(student), named.digest(teacher), made.public_set().tobytes()]
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    distil(made, "cpu", student, teacher, SETTINGS, (0,))
    assert digests == [named.digest(student), named.digest(teacher), made.public_set().tobytes()]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_equal_seeds_give_equal_bits_whatever_the_threads(made, teacher):
    student, threads = student_of(made), torch.get_num_threads()
    found = {}
    try:
        for seed, count in ((1, 1), (1, 2), (2, 1)):
            torch.set_num_threads(count)
            taught, _ = distil(made, "cpu", student, teacher, SETTINGS, (seed,))
            found[seed, count] = named.digest(taught)
    finally:
        torch.set_num_threads(threads)
    assert found[1, 1] == found[1, 2] != found[2, 1]


def test_it_sees_the_public_examples_and_nothing_else(made, teacher):
    """Other clients' data, other test data: the same student. Other public data: another."""
    student = student_of(made)
    digests = []
    for change in (None, "others", "public"):
        changed = copy.copy(made)
        data = copy.copy(made._data)
        x = data.train_x.copy()
        mine = np.zeros(len(x), bool)
        mine[made._public] = True
        if change is not None:
            x[mine if change == "public" else ~mine] = 0.5
        object.__setattr__(data, "train_x", x)
        object.__setattr__(data, "test_x", data.test_x * (change is None))
        changed._data = data
        taught, _ = distil(changed, "cpu", student, teacher, SETTINGS, (0,))
        digests.append(named.digest(taught))
    assert digests[0] == digests[1] != digests[2]


def test_a_last_batch_of_one_public_example_ends_nothing():
    """BatchNorm has no variance of one example."""

    def fresh(seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    public = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    made = SimpleNamespace(fresh_model=fresh, public_set=lambda: public)
    arrays = models.to_arrays(fresh(0))
    settings = {**SETTINGS, "batch_size": 4, "epochs": 2}
    taught, examples = distil(made, "cpu", arrays, arrays, settings, (0, 0, 0, 0))
    assert examples == 10
    assert named.is_finite(taught)
