"""What a model of text still says of what it was to forget, beside the scorecard.

Perplexity of every set; how often it goes on letter for letter with what it was trained on; and,
where canaries were planted, how exposed their secrets are. The retrained model shows what each
number is where there is nothing to remember: perplexity on the forget set that of held-out text,
exposure about 1.44 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.data.markers import Canaries
from experiments.federation.judged_sets import judged_sets
from experiments.federation.party import Party
from experiments.federation.task import Examples, Task
from experiments.federation.text_judge import spread_evenly
from experiments.runs.details import TextMeasure
from unlearning.arrays import Array
from unlearning.evaluation.scorecard import Predictions
from unlearning.evaluation.text import completion, exposure, perplexity
from unlearning.request import Request

__all__ = ["REFERENCES", "measure_text", "said_greedily"]

Integers = NDArray[np.int64]

REFERENCES = 511  # other secrets that each canary's is ranked among: 9 bits at most
_COMPLETED = 200  # windows that are gone on with
_LENGTH = 4  # characters of a completion: most of a word


def measure_text(
    task: Task,
    requests: Sequence[Request],
    parties: Iterable[Party],
    device: str = "cpu",
    *,
    say: Callable[[str], None] = lambda strategy: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[TextMeasure]:
    """Yield the measures of every party's model.

    Parameters
    ----------
    task : Task
        Of the parties' seed; its model answers at every position.
    requests : sequence of Request
        All that were served.
    parties : iterable of Party
        Of this seed.
    device : str
        Where models are evaluated.
    say : callable
        Told of each strategy.
    stop : callable
        Whether to break off.
    """
    sets = judged_sets(task, requests)
    for party in parties:
        if stop():
            return
        say(party.strategy)
        outputs = party.outputs
        seen = {"retain": outputs.retain, "forget": outputs.forget, "test": outputs.test}
        found = _perplexities({**seen, "held_out": outputs.held_out})
        if party.arrays:
            for name, windows in (("forget", sets.forget), ("held_out", sets.held_out)):
                found |= _completions(task, party.arrays, name, windows, device)
            if (planted := task.planted_canaries()) is not None:
                found |= _canaries(task, party.arrays, planted, device)
        for measure, value in found.items():
            yield TextMeasure(
                strategy=party.strategy, seed=party.seed, measure=measure, value=value
            )


def said_greedily(
    task: Task, arrays: Mapping[str, Array], begun: Integers, count: int, device: str = "cpu"
) -> Integers:
    """Return the ``count`` tokens that a model goes on with, always the likeliest.

    Parameters
    ----------
    task : Task
        Its model answers at every position.
    arrays : mapping of str to array
        The model.
    begun : array of int64, shape (n, length)
        At least one token, and no more with ``count`` than a window and one.
    """
    text = begun
    for _ in range(count):
        said = task.predict_all(arrays, text.astype(np.float32), device)[:, -1].argmax(1)
        text = np.concatenate([text, said[:, None].astype(np.int64)], axis=1)
    return text[:, begun.shape[1] :]


def _perplexities(seen: Mapping[str, Predictions]) -> dict[str, float]:
    return {
        f"{name}_perplexity": perplexity(found.losses())
        for name, found in seen.items()
        if len(found)
    }


def _completions(
    task: Task, arrays: Mapping[str, Array], name: str, windows: Examples, device: str
) -> dict[str, float]:
    """Return how often the second half of a window begins as the model goes on with the first."""
    if not len(windows.y):
        return {}
    chosen = spread_evenly(windows, _COMPLETED)
    rows = np.concatenate([chosen.x.astype(np.int64), chosen.y[:, None]], axis=1)
    half = rows.shape[1] // 2
    count = min(_LENGTH, rows.shape[1] - half)
    said = said_greedily(task, arrays, rows[:, :half], count, device)
    return {f"{name}_completion": completion(said, rows[:, half : half + count])}


def _canaries(
    task: Task, arrays: Mapping[str, Array], planted: Canaries, device: str
) -> dict[str, float]:
    """Return the mean exposure of the secrets, and how many are said word for word."""
    generator = np.random.default_rng([task.scenario.data_seed, len(planted.secrets)])
    own, others = [], []
    for beginning, secret in zip(planted.beginnings, planted.secrets, strict=True):
        drawn = generator.integers(len(planted.tokens), size=(REFERENCES, len(secret)))
        ends = np.concatenate([secret[None], planted.tokens[drawn]])
        losses = _losses_behind(task, arrays, beginning, ends, device)
        own.append(losses[0])
        others.append(losses[1:])
    bits = exposure(np.array(own), np.stack(others))
    length = planted.secrets.shape[1]
    said = said_greedily(task, arrays, planted.beginnings, length, device)
    return {
        "canary_exposure": float(bits.mean()),
        "canary_completion": completion(said, planted.secrets),
    }


def _losses_behind(
    task: Task, arrays: Mapping[str, Array], beginning: Integers, ends: Integers, device: str
) -> NDArray[np.float64]:
    """Return -log p(end | beginning) of several ends, in nats; shape (n,)."""
    begun = np.broadcast_to(beginning, (len(ends), len(beginning)))
    rows = np.concatenate([begun, ends], axis=1)
    said = task.predict_all(arrays, rows[:, :-1].astype(np.float32), device)
    chances = np.take_along_axis(said[:, len(beginning) - 1 :], ends[..., None], axis=2)[..., 0]
    tiny = np.finfo(np.float32).tiny
    found: NDArray[np.float64] = -np.log(np.maximum(chances.astype(np.float64), tiny)).sum(axis=1)
    return found
