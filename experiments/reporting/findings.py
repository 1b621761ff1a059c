"""What was found in sentences, and what limits it, the gravest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.reporting.audit import Audited
from experiments.reporting.run import Run, mean, number
from experiments.runs.details import Details
from experiments.runs.results import FINE_TUNE, ORIGINAL, RETRAIN, spread
from experiments.runs.table import with_sd
from experiments.runs.text import EXPOSURE
from unlearning.evaluation.scorecard import MARKER_POWER, improves, summarise

__all__ = [
    "Finding",
    "asked",
    "audit_findings",
    "audit_summary",
    "audit_warnings",
    "findings",
    "summary",
    "warnings",
]

_SHOWN_REQUESTS = 3


@dataclass(frozen=True)
class Finding:
    """A sentence and what it is about."""

    lead: str
    text: str


def _times_fewer(run: Run, strategy: str) -> str:
    """Return the cost beside retraining's, in words; empty if not both were measured."""
    ours, base = (spread(run.rows, name, "examples") for name in (strategy, RETRAIN))
    if ours is None or base is None:
        return ""
    if not ours.mean:
        return f"no example processed in place of {base.mean:,.0f} for retraining"
    text = f"{ours.mean:,.0f} examples processed in place of {base.mean:,.0f} for retraining"
    faster = spread(run.rows, strategy, "speedup_examples")
    return text if faster is None else f"{text}, a speed-up of {with_sd(faster)}"


def _answer(run: Run, strategy: str) -> Finding:
    verdict = run.verdict(strategy)
    lead = f"{strategy} ({run.guarantees[strategy]}{f', marker {verdict}' if verdict else ''})"
    parts = []
    for name, words in (
        ("backdoor_success", "backdoor success"),
        ("forget_accuracy", "forget accuracy"),
        ("test_accuracy", "test accuracy"),
    ):
        found = spread(run.rows, strategy, name)
        if found is None:
            continue
        differences = run.to_retrain(strategy, name)
        gap = f" ({number(mean(differences), sign=True)} to retraining)" if differences else ""
        parts.append(f"{words} {number(found.mean)}{gap}")
    if (bits := run.of_text(strategy, EXPOSURE)) is not None:
        retrained = run.of_text(RETRAIN, EXPOSURE)
        beside = "" if retrained is None else f" (retrained {number(retrained, 2)})"
        parts.append(f"exposure of canaries {number(bits, 2)} bits{beside}")
    if cost := _times_fewer(run, strategy):
        parts.append(cost)
    return Finding(lead, "; ".join(parts) + ".")


def findings(run: Run, unserved: Mapping[str, str] | None = None) -> list[Finding]:
    """Return what was found, the marker's power first; ``unserved`` as in :func:`summary`."""
    found = []
    before = spread(run.rows, ORIGINAL, "backdoor_success")
    reference = spread(run.rows, RETRAIN, "backdoor_success")
    if before is not None and run.has_power:
        text = (
            f"the original model takes a share of {number(before.mean)} of the test examples with "
            "the trigger for the attacker's label"
        )
        if reference is not None:
            text += f"; the model retrained without the data, {number(reference.mean)}"
        found.append(Finding("The marker has power", f"{text}."))
    if (bits := run.of_text(ORIGINAL, EXPOSURE)) is not None:
        retrained = run.of_text(RETRAIN, EXPOSURE)
        text = f"an exposure of {number(bits, 2)} bits in the original model"
        if retrained is not None:
            text += f"; {number(retrained, 2)} in the one retrained without the data"
        found.append(Finding("The canaries have", f"{text}."))
    found.extend(_answer(run, name) for name in run.answers)
    if FINE_TUNE in run.strategies:
        control = _answer(run, FINE_TUNE)
        found.append(Finding("fine-tune, the control that every answer must beat", control.text))
    found.extend(_closest(run, unserved or {}))
    return found


def _closest(run: Run, unserved: Mapping[str, str]) -> list[Finding]:
    """Return who came closest to retraining, of those that may be named for it, and who may not."""
    gaps = {name: mean(list(run.gaps(name).values())) for name in run.answers}
    measured = {name: gap for name, gap in gaps.items() if gap is not None}
    if len(measured) < 2:
        return []
    barred = {
        name: why
        for name in measured
        for why, applies in (
            ("left a request unserved", name in unserved),
            ("did not forget", run.has_failed(name)),
            ("took as much work as retraining", run.is_retraining(name)),
        )
        if applies
    }
    named = {name: gap for name, gap in measured.items() if name not in barred}
    text = "nobody that forgot with less work than retraining."
    nearest = min(measured.values())
    if named:
        best = min(named, key=lambda name: named[name])
        nearest = named[best]
        text = f"{best}, with an average gap of {number(nearest)}."
    left = [f"{n} ({why})" for n, why in barred.items() if not named or measured[n] <= nearest]
    if left:
        text += f" Left out: {', '.join(left)}."
    return [Finding("Closest to retraining", text)]


def _marker_warnings(run: Run) -> list[str]:
    if run.marker_before and not run.is_marker_asked:
        return [
            "The marker is of data that nobody asked to forget, so it says nothing of the answers "
            "and no verdict is drawn from it."
        ]
    if run.marker_before and not run.has_power:
        return [
            "The marker has no power: backdoor success of the original model is "
            f"{number(summarise(run.marker_before).mean, 2)}, below {MARKER_POWER:.2f}. It cannot "
            "tell a model that forgot from one that never learned, so no verdict is given."
        ]
    if (run.details.marker or {}).get("kind") == "canary":
        return [
            "Canaries are no backdoor, so no verdict is drawn from them: how exposed they still "
            "are stands under Text, beside the retrained model and what chance gives."
        ]
    if not run.marker_before:
        return [
            "No backdoor was planted, so no verdict is given: on easy data accuracy and the "
            "membership attack can hardly tell a model that did nothing from a retrained one."
        ]
    return []


def warnings(run: Run) -> list[str]:
    """Return what limits the claims of this run, the gravest first."""
    found = _marker_warnings(run)
    if not run.has_reference:
        found.append(
            "No retrained model: how much was forgotten cannot be said without one. "
            "The command fedunlearn compare makes one."
        )
    for name in run.answers:
        ours, theirs = (mean(list(run.gaps(n).values())) for n in (name, FINE_TUNE))
        differences = run.against_fine_tune(name)
        if not differences or improves(differences):
            continue
        pair = f"average gap {number(ours)} against {number(theirs)}"
        found.append(
            f"{name} is not better than fine-tuning alone ({pair})."
            if improves(differences) is False
            else f"{name} is not shown to be better than fine-tuning alone: its lead ({pair}) is "
            "within the spread over seeds."
        )
    if len(run.seeds) == 1:
        found.append(
            "One seed is an observation, not a finding: no interval can be given. "
            "Repeat with --seeds 0,1,2,3,4."
        )
    errors = [e.mia_null_se for e in run.details.extra if e.strategy == ORIGINAL]
    noise, before = mean(errors), spread(run.rows, ORIGINAL, "mia_auc")
    if noise is not None and before is not None and abs(before.mean - 0.5) < 2 * noise:
        found.append(
            f"The membership attack tells nothing here: its AUC on the original model, "
            f"{number(before.mean)}, is within two standard errors of chance (±"
            f"{number(2 * noise)})."
        )
    return found


def audit_summary(audited: Audited | None) -> str:
    """Return in one sentence what an audit was made of."""
    if audited is None:
        return ""
    facts = dict(audited.facts)
    many = f"{facts['federations']} federations" if "federations" in facts else "Many federations"
    sides = f", {audited.models_per_side} models on every side" if audited.models_per_side else ""
    return f"{many}{sides}: can the unlearned models be told from retrained ones?"


def audit_findings(audited: Audited | None) -> list[Finding]:
    """Return the verdicts of the audit on the strategies; controls are in its table."""
    found = []
    for row in audited.rows if audited else ():
        if row.control:
            continue
        more = row.more_seeds.value
        text = row.why or row.verdict.why
        if more is not None:
            text += f"; {more:.0f} more seeds would settle it"
        verdict = "no verdict" if row.verdict.why else row.verdict.text
        found.append(Finding(f"Audit, {row.strategy} {verdict}", f"{text.rstrip('.')}."))
    return found


def audit_warnings(audited: Audited | None) -> list[str]:
    """Return what limits the audit's claims."""
    if audited is None:
        return []
    found = []
    tried = [card for card in audited.cards if card.was_tried]
    failed = [card.id for card in tried if not card.passes]
    if failed:
        found.append(
            f"{len(failed)} of {len(tried)} measures that the audit tried decide nothing in this "
            f"scenario; their validity cards say why: {', '.join(failed)}."
        )
    if audited.exploratory:
        found.append("The audit has few models a side: a first look, not a finding.")
    return found


def asked(details: Details) -> str:
    """Return in words what was to be forgotten, the first requests only; empty if nothing."""
    texts = [str(request.get("text", "something")) for request in details.requests]
    if len(texts) > _SHOWN_REQUESTS:
        texts[_SHOWN_REQUESTS:] = [f"{len(texts) - _SHOWN_REQUESTS} more"]
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def _rounds(count: int) -> str:
    return f"{count} round" if count == 1 else f"{count} rounds"


def summary(run: Run, unserved: Mapping[str, str] | None = None) -> str:
    """Return in one sentence what this run did; who left a request unserved did not answer it."""
    details = run.details
    data = details.data
    who = f"{data['clients']} clients" if "clients" in data else "A federation"
    what = f" learned {data['name']}" if "name" in data else " learned"
    learned = details.rounds.get("learned")
    rounds = f" for {_rounds(learned)}" if learned else ""
    wanted = asked(details)
    wish = f" The federation was then asked to forget {wanted}." if wanted else ""
    left = unserved or {}
    names = ", ".join(name for name in run.answers if name not in left)
    recovery = details.rounds.get("recovery")
    after = f", each followed by {_rounds(recovery)} of recovery" if recovery else ""
    answered = f" Answered by {names}{after}." if names else ""
    missing = "; ".join(f"{name} ({words})" for name, words in left.items())
    not_served = f" Not answered by {missing}." if missing else ""
    return f"{who}{what}{rounds}.{wish}{answered}{not_served}"
