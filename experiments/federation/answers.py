"""What became of each request on its own: measures of its forget set, model by model.

A scorecard pools all requests of a run. One that was forgotten and one that was not give a number
that is true of neither, so each is measured by itself, too, on the final models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.federation.party import Party
from experiments.federation.task import Task
from experiments.federation.task_judge import judge_of
from experiments.runs.details import Answer
from unlearning.evaluation.scorecard import Outputs, score
from unlearning.request import Forgotten, Request

__all__ = ["answer", "answers", "asks_for_marker"]


def answers(
    task: Task, requests: Iterable[Request], parties: Sequence[Party], device: str = "cpu"
) -> list[Answer]:
    """Return the measures of every request on every model.

    Parameters
    ----------
    task : Task
        Of the parties' seed.
    requests : iterable of Request
        Those that were served.
    parties : sequence of Party
        Final models, the original and the retrained one among them.
    device : str
        Where models are evaluated.
    """
    asked = tuple(requests)
    found = []
    parties = [party for party in parties if party.arrays]  # of the others it was taken before
    for request in asked:
        judge = judge_of(task, [request], device) if len(asked) > 1 else None
        is_marked = asks_for_marker(task, [request])
        for party in parties:
            outputs = party.outputs if judge is None else judge.outputs(party.arrays, alone=True)
            found.append(_answer(request, party, outputs, is_marked=is_marked))
    return found


def answer(task: Task, request: Request, party: Party, device: str = "cpu") -> Answer:
    """Return the measures of one request on one model; see :func:`answers`."""
    outputs = party.outputs  # where the sites tell, they were asked about this request alone
    if not task.remote:
        outputs = judge_of(task, [request], device).outputs(party.arrays, alone=True)
    return _answer(request, party, outputs, is_marked=asks_for_marker(task, [request]))


def _answer(request: Request, party: Party, outputs: Outputs, *, is_marked: bool) -> Answer:
    card = score(outputs)
    return Answer(
        request=request.id,
        strategy=party.strategy,
        seed=party.seed,
        examples=outputs.num_forgotten,
        forget_accuracy=card.forget_accuracy,
        mia_auc=card.mia_auc,
        # The trigger tells of the request that takes the data with the marker away, of no other.
        backdoor_success=card.backdoor_success if is_marked else None,
    )


def asks_for_marker(task: Task, requests: Iterable[Request]) -> bool:
    """Return whether all that carries the marker is to be forgotten: examples, or its values."""
    gone, values = Forgotten(tuple(requests)), set(task.columns.marked)
    return bool(task.marked_samples) and not any(
        np.any(task.kept(client, gone)[list(positions)])
        and not (values and values <= gone.omission(client).features)
        for client, positions in task.marked_samples.items()
    )
