"""What remains at risk after a request was served, from what the guard wrote into the ledger."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["residual_risks"]


def residual_risks(facts: Mapping[str, object]) -> list[str]:
    """Return, in words, what a served request leaves open; empty if nothing is known.

    Parameters
    ----------
    facts : mapping
        Of the event ``fulfilled`` or ``held``.
    """
    risks: list[str] = []
    deletion = facts.get("deletion")
    if isinstance(deletion, Mapping) and (silent := deletion.get("unacknowledged")):
        risks.append(
            f"client {_listed(silent)} did not confirm that its data are deleted: it refused, or "
            "was away; they stay out of training all the same"
        )
    if isinstance(deletion, Mapping):
        risks += [str(one) for one in deletion.get("residuals", ())]
    copies, step = facts.get("duplicates"), facts.get("step")
    if isinstance(copies, Mapping):
        if copies["copies"]:
            risks.append(
                f"{copies['copies']} of its {copies['samples']} samples are held by client "
                f"{_listed(copies['clients'])} too, bit for bit: what they taught can stay, even "
                "after retraining"
            )
        if copies["unanswered"]:
            risks.append(f"client {_listed(copies['unanswered'])} did not say what it holds")
    if isinstance(step, Mapping) and step["share"] > step["limit"]:
        risks.append(
            f"the answer was shortened from {step['share']:.3g} to {step['limit']:g} of the "
            "model's length: it forgets less than the strategy meant to"
        )
    held = deletion.get("examples") if isinstance(deletion, Mapping) else None
    if facts.get("unchanged") and held and facts.get("guarantee") not in ("exact", "certified"):
        said = facts["unchanged"]
        risks.append(
            f"no weight was changed for it: {said}"
            if isinstance(said, str)
            else "no weight was changed for it: what learning on without the data takes away is all"
        )
    return risks


def _listed(clients: object) -> str:
    return ", ".join(map(str, clients)) if isinstance(clients, (list, tuple)) else str(clients)
