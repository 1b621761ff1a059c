"""The client's part of a claim: open samples with the salt that only the client has."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.config.loading import from_mapping
from experiments.federation.participants import participant
from experiments.federation.task import Scenario
from experiments.runs.folder import RunFolder
from unlearning.errors import RequestError
from unlearning.records.commitment import Claim, opening

__all__ = ["claim_of"]


def claim_of(folder: RunFolder, client: int, positions: Sequence[int]) -> Claim:
    """Return the opened samples of one client of a run.

    Raises
    ------
    RequestError
        If nobody committed to anything there, the client has no salt (any more), or there is no
        such sample.
    """
    facts = folder.read_federation()
    if client not in facts.commitments:
        raise RequestError(
            f"client {client} of {folder.path} committed itself to nothing; ask without a claim, "
            "or run with guard.commitment = true"
        )
    config = from_mapping(folder.read_config(), str(folder.config))
    home = folder.homes / f"seed-{config.seed}"
    owner = participant(client, Scenario.of(config).to_json(), "cpu", home)
    if not owner.memory.has_salt:
        raise RequestError(
            f"client {client} of {folder.path} has no salt any more, so nothing can be opened; it "
            "goes when the client is forgotten"
        )
    leaves = owner.leaves()
    if odd := [position for position in positions if not 0 <= position < len(leaves)]:
        raise RequestError(
            f"unknown sample {odd[0]} of client {client}: its training samples are counted from 0 "
            f"to {len(leaves) - 1}"
        )
    return {client: {position: opening(leaves, position) for position in positions}}
