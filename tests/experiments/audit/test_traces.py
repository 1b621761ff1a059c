"""Traces say what the task says about a model, and depend on nothing but the model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from experiments.audit.plan import settled
from experiments.audit.traces import COUNTED, PHASES, RELEARN_STEPS, Trace, Tracer
from experiments.federation.task import Scenario, Task, task
from tests.support.audits import config
from unlearning.cost import Cost
from unlearning.request import Forgotten


def make(**changes: object) -> tuple[Task, Tracer]:
    chosen = settled(config(**changes))
    made = task(Scenario.of(chosen))
    return made, Tracer(made, chosen.domain_requests(made.marked_samples), chosen.train)


@pytest.fixture(scope="module")
def plain() -> tuple[Task, Tracer]:
    return make()


@pytest.fixture(scope="module")
def trace(plain: tuple[Task, Tracer]) -> Trace:
    made, tracer = plain
    return tracer.trace(made.initial(), {"unlearn": Cost(examples=7, bytes_up=3)})


def test_probes_are_the_tasks_sets(plain: tuple[Task, Tracer]) -> None:
    made, tracer = plain
    probes, own = tracer.probes, made.client(1)
    assert np.array_equal(probes.forget.x, own.train_x)
    assert np.array_equal(probes.held_out.x, own.held_x)
    assert np.flatnonzero(probes.marked).tolist() == list(made.marked(1))
    assert set(probes.retain_clients) == {0, 2}
    everyone = {client: made.client(client).train_x for client in made.clients}
    for x, client in zip(probes.retain.x, probes.retain_clients, strict=True):
        assert (everyone[int(client)] == x).all(axis=(1, 2, 3)).any()
    assert probes.client_class[1].sum() == 0
    assert probes.client_class.sum() == sum(len(everyone[c]) for c in (0, 2))


def test_a_trace_holds_what_the_model_says(plain: tuple[Task, Tracer], trace: Trace) -> None:
    made, tracer = plain
    arrays, probes = made.initial(), tracer.probes
    for name in ("forget", "held_out", "retain", "test"):
        said = made.predict(arrays, getattr(probes, name).x)
        assert np.allclose(softmax(getattr(trace, name), axis=1), said, atol=1e-6)
    retained = made.retain_set(Forgotten(tracer_requests()))
    for place, (x, y) in enumerate((probes.forget, retained, made.test_set())):
        right = made.predict(arrays, x).argmax(1) == y
        assert trace.accuracies[place] == pytest.approx(right.mean())
    assert np.isnan(trace.clients[1])
    own = made.client(2)
    right = made.predict(arrays, own.train_x).argmax(1) == own.train_y
    assert trace.clients[2] == pytest.approx(right.mean())
    assert trace.class_correct[2].tolist() == np.bincount(own.train_y[right], minlength=10).tolist()
    triggered = made.triggered_test()
    assert triggered is not None
    hits = made.predict(arrays, triggered.x).argmax(1) == triggered.target
    assert trace.marker.tolist() == [hits.mean()]
    assert trace.work[PHASES.index("unlearn"), COUNTED.index("examples")] == 7
    assert trace.work.sum() == 10
    assert trace.features.shape == (len(probes.test.y[:128]), 4)
    assert trace.noise.size == 0


def tracer_requests() -> tuple:  # type: ignore[type-arg]
    return settled(config()).domain_requests({1: (0,)})


def test_relearning_learns(plain: tuple[Task, Tracer], trace: Trace) -> None:
    made, tracer = plain
    forget = tracer.probes.forget
    assert trace.relearn.shape == (RELEARN_STEPS + 1,)
    assert trace.relearn[0] == pytest.approx(made.losses(made.initial(), forget).mean(), abs=1e-5)
    assert trace.relearn[-1] < trace.relearn[0]


def test_a_trace_changes_nothing_and_comes_again(plain: tuple[Task, Tracer], trace: Trace) -> None:
    made, tracer = plain
    other = {name: array + 1 for name, array in made.initial().items()}
    tracer.trace(other)
    again = tracer.trace(made.initial(), {"unlearn": Cost(examples=7, bytes_up=3)})
    assert again.to_bytes() == trace.to_bytes()


def test_flipped_labels_succeed_where_they_are_answered() -> None:
    made, tracer = make(marker={"client": 1, "kind": "label-flip", "fraction": 0.5})
    arrays, probes = made.initial(), tracer.probes
    right = made.predict(arrays, probes.forget.x).argmax(1) == probes.forget.y
    assert tracer.trace(arrays).marker.tolist() == [right[list(made.marked(1))].mean()]


def test_noise_is_told_by_the_gradient_at_the_clean_input() -> None:
    """Against finite differences, on a model whose loss is smooth enough for them."""
    made, tracer = make(marker={"client": 1, "kind": "noise", "sigma": 0.5})
    arrays = made.initial()
    found = tracer.trace(arrays).noise
    planted = made.planted_noise()
    assert planted is not None
    assert found.shape == (len(planted.y),)
    from experiments.federation.task import Examples

    step = 1e-2
    shape = planted.x.shape
    gradient = np.zeros((len(planted.y), planted.x[0].size))
    for i in range(gradient.shape[1]):
        ends = []
        for sign in (1, -1):
            x = planted.x.reshape(len(planted.y), -1).copy()
            x[:, i] += sign * step
            ends.append(made.losses(arrays, Examples(x.reshape(shape), planted.y)))
        gradient[:, i] = (ends[0] - ends[1]) / (2 * step)
    noise = planted.noise.reshape(len(planted.y), -1)
    expected = (gradient * noise).sum(1) / (0.5 * np.linalg.norm(gradient, axis=1))
    assert np.median(np.abs(found - expected)) < 1e-2  # kinks of ReLU move single examples


def test_an_array_model_leaves_what_it_has() -> None:
    made, tracer = make(model={"name": "ridge"}, marker=None)
    arrays = made.initial()
    found = tracer.trace(arrays)
    assert found.forget.shape == (len(tracer.probes.forget.y), 10)
    assert np.isfinite(found.forget).all()
    assert found.relearn.size == found.features.size == found.noise.size == found.marker.size == 0


def test_of_text_a_trace_holds_the_last_character() -> None:
    made, tracer = make(
        data={
            "name": "shakespeare",
            "partitioner": "natural-id",
            "window": 8,
            "speakers": 3,
            "limit": 60,
        },
        model={"name": "char-lstm", "hidden": 4, "layers": 1},
        marker=None,
        requests=[{"scope": "client", "clients": [1]}],
    )
    found = tracer.trace(made.initial())
    x = tracer.probes.test.x
    assert np.allclose(softmax(found.test, axis=1), made.predict(made.initial(), x), atol=1e-5)
    assert found.relearn[-1] < found.relearn[0]
