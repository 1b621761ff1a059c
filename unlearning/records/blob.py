"""One stored file as the index knows it: what it holds, whose it is, what its bytes must be."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Blob", "about"]


@dataclass(frozen=True)
class Blob:
    """A row of the index: one file, what it holds and what its bytes must be.

    Parameters
    ----------
    path : str
        ``batch/name``, with forward slashes.
    kind : str
        ``initial``, ``global``, ``update``, ``contribution`` or ``state``.
    server_round : int
        The round it belongs to; 0 for the initial model and the state of a strategy; for a
        contribution the last round in it.
    client : int or None
        Whose it is.
    sha256 : str
        Hex digest of the bytes.
    size : int
        In bytes.
    key : str or None
        Which key of the ring locks it; None: it is not encrypted.
    """

    path: str
    kind: str
    server_round: int
    client: int | None
    sha256: str
    size: int
    key: str | None = None

    @property
    def about(self) -> str:
        """What is bound to its bytes where they are encrypted."""
        return about(self.kind, self.server_round, self.client)

    @property
    def name(self) -> str:
        """The name inside a batch that holds one round."""
        return {
            "initial": "initial.safetensors",
            "global": "global.safetensors",
            "update": f"client-{self.client or 0:05d}.safetensors",
            "contribution": f"contribution-{self.client or 0:05d}.safetensors",
            "state": "state.safetensors",
        }[self.kind]

    @property
    def moved_name(self) -> str:
        """The name inside a batch that holds a whole history."""
        return f"round-{self.server_round:05d}/{self.name}"


def about(kind: str, server_round: int, client: int | None) -> str:
    """Return what is bound to encrypted bytes: they open as this and as nothing else."""
    return f"{kind}|{server_round}|{'' if client is None else client}"
