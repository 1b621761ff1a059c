"""How far each claim goes: the guarantee and the residual risk in words, strategy by strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.reporting.origin import Entry
from experiments.reporting.run import TITLES, Run
from experiments.runs.results import CONTROLS, ORIGINAL, RETRAIN
from unlearning.evaluation.scorecard import MARGINS, MARKER_MARGIN, Closeness, Verdict, closeness

__all__ = ["ALWAYS", "MEASURES", "Claim", "claims"]

_MEANING = {  # guarantee: what it says, what remains at risk
    "exact": (
        "Distributed as a model retrained without the data.",
        "None from training itself, provided that the owners and all stores have deleted. Copies "
        "of the data at other clients, and models published before the request, still hold what "
        "they learned from them.",
    ),
    "certified": (
        "Within the stated epsilon and delta of retraining.",
        "What an attacker can gain is bounded by epsilon and delta, as long as the assumptions of "
        "the proof hold: convex loss, clipped updates, noise really drawn. Beyond them nothing is "
        "promised.",
    ),
    "approximate": (
        "No proof: what is known is what was measured here.",
        "Traces may remain that these measures do not see; a stronger attack may find them. This "
        "is not a deletion, and must not be called one.",
    ),
    "suppressed": (
        "Hidden in what the model says; some of its weights still hold the data.",
        "Whoever undoes the hiding, an adapter or a head, has its influence back.",
    ),
    "none": (
        "Nothing was forgotten.",
        "All of it: this is the model as it was before the request.",
    ),
}
_OWN = ("A guarantee of the strategy's own.", "See the strategy's documentation.")

ALWAYS = (
    "For every strategy: whoever sees the model both before and after the request can learn from "
    "the difference what left. A marker that is gone does not prove that ordinary data are gone; "
    "a few rounds of fine-tuning erase many markers."
)

MEASURES = {
    "Retain, forget, test accuracy": "Share of examples whose most probable class is their label, "
    "0 to 1, on the training data that stay, on the data to be forgotten, and on the test split. A "
    "retrained model is about as good on honestly labelled forgotten data as on test data, so a "
    "low forget accuracy is no aim of itself.",
    "MIA AUC": "Area under the curve of a membership attack that calls an example trained on when "
    "its loss is low: forget set against data of the same owners never trained on. 0.5 means "
    "indistinguishable; below 0.5, forgotten data look less familiar than fresh data.",
    "Backdoor success": "Share of test examples with the trigger, whose true label is another, "
    "that the model takes for the attacker's label, 0 to 1. The aim is the retrained model's "
    "value, which need not be 0.",
    "Prediction distance": "Mean Euclidean distance between the softmax outputs of this and the "
    "retrained model on the forget set, 0 to 1.414.",
    "Average gap": "Mean absolute difference to the retrained model of the same seed, over the "
    "accuracies, the MIA AUC and, if measured, backdoor success. 0 is retraining itself.",
    "Marker": "“Marker forgotten”: the whole 95 % interval of backdoor success, less the "
    f"retrained model's, lies below {MARKER_MARGIN}. “Not forgotten”: it lies above. Otherwise "
    "inconclusive, and with one seed always.",
    "Interval": "95 % interval of the mean over training seeds, by Student's t; the seeds are the "
    "unit of replication. It ends where the number can go no further: at 0 or 1 for a share.",
    "Within, beyond, undecided": "The whole 95 % interval of the paired difference lies within "
    "the margin declared before the run; lies outside; neither. Being undecided is not being "
    "equal.",
}


@dataclass(frozen=True)
class Claim:
    """What one result claims, what remains at risk, and what was measured of it here."""

    strategy: str
    control: bool
    guarantee: str
    meaning: str
    risk: str
    seen: str


def claims(run: Run, ledger: Sequence[Entry] = ()) -> list[Claim]:
    """Return the claims in the order of every table.

    Parameters
    ----------
    run : Run
        Its results.
    ledger : sequence of Entry
        Events of its requests: what the guard saw adds to the risk.
    """
    found = []
    for name in run.strategies:
        meaning, risk = _MEANING.get(run.guarantees[name], _OWN)
        seen = " ".join(f"{one[0].upper()}{one[1:]}." for one in _risks(run, name, ledger))
        found.append(
            Claim(
                name,
                name in CONTROLS,
                run.guarantees[name],
                meaning,
                f"{risk} {seen}".strip(),
                _seen(run, name),
            )
        )
    return found


def _risks(run: Run, strategy: str, ledger: Sequence[Entry]) -> list[str]:
    """Return what the ledger says of one strategy's answers, each once."""
    alone = run.answers == (strategy,)  # a run without a comparison has no branches
    return list(
        dict.fromkeys(
            risk
            for entry in ledger
            if entry.branch.startswith(f"{strategy}/") or (alone and not entry.branch)
            for risk in entry.risks
        )
    )


def _seen(run: Run, strategy: str) -> str:
    """Return in words what was measured of one claim."""
    if strategy == RETRAIN:
        return "The reference: every difference is taken to it."
    found: dict[Closeness, list[str]] = {}
    for name, margin in MARGINS.items():
        where = closeness(run.to_retrain(strategy, name), margin)
        if where is not None:
            found.setdefault(where, []).append(TITLES[name].replace("MIA", "membership"))
    parts = []
    verdict = run.verdict(strategy)
    if verdict is not None and strategy != ORIGINAL:
        parts.append(f"Marker {verdict}.")
    if verdict is Verdict.NOT_FORGOTTEN and run.guarantees[strategy] in ("exact", "certified"):
        parts.append("This contradicts the claim.")
    words = {
        Closeness.BEYOND: "Unlike retraining",
        Closeness.WITHIN: "Within the margin of retraining",
        Closeness.OPEN: "Undecided",
    }
    parts += [
        f"{text}: {', '.join(found[where]).lower().replace('auc', 'AUC')}."
        for where, text in words.items()
        if where in found
    ]
    return " ".join(parts) or "Nothing could be compared with retraining."
