"""What a stretch of work cost: the figures behind every speed-up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

__all__ = ["Cost", "speedup"]


@dataclass(frozen=True)
class Cost:
    """Cost of some rounds, evaluation excluded.

    Parameters
    ----------
    wall_s : float
        Wall-clock seconds at the server.
    client_rounds : int
        Answers asked of clients: one per client and round.
    client_s : float
        Seconds the clients worked, summed over clients.
    examples : int
        Forward-backward passes over single examples, summed over clients.
    bytes_up, bytes_down : int
        Array bytes from and to clients.
    """

    wall_s: float = 0.0
    client_rounds: int = 0
    client_s: float = 0.0
    examples: int = 0
    bytes_up: int = 0
    bytes_down: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(  # written out: there is one sum for every message
            self.wall_s + other.wall_s,
            self.client_rounds + other.client_rounds,
            self.client_s + other.client_s,
            self.examples + other.examples,
            self.bytes_up + other.bytes_up,
            self.bytes_down + other.bytes_down,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(Cost)))

    def to_json(self) -> dict[str, float]:
        """Return the figures by name."""
        return asdict(self)


def speedup(reference: float, value: float) -> float | None:
    """Return ``reference / value``, or None where ``value`` is zero (nothing was spent)."""
    return reference / value if value > 0 else None
