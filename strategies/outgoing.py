"""The model as it goes out: serialised once a round, cut to the parts that each client needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import ArrayRecord

from strategies.wire import to_record
from unlearning.arrays import Arrays
from unlearning.models.portions import Whose, needed
from unlearning.protocol import Instruction

__all__ = ["Outgoing"]


@dataclass
class Outgoing:
    """Records of one round's global model, each made when it is first asked for.

    Parameters
    ----------
    arrays : Arrays
        The model.
    whole : ArrayRecord or None
        The same as Flower's record; None: it is made when it is asked for.
    """

    arrays: Arrays
    whole: ArrayRecord | None = None
    _cut: dict[Whose, ArrayRecord] = field(default_factory=dict)  # by what clients share
    _last: tuple[Arrays, ArrayRecord] | None = None  # a model of its own that a client was sent

    def record(self, instruction: Instruction, whose: Whose | None = None) -> ArrayRecord:
        """Return the model that a client is sent.

        Parameters
        ----------
        instruction : Instruction
            What it is asked.
        whose : int, frozenset of str, or None
            Of a model made of parts, the client's group or its tasks: it is sent what it needs in
            order to train. None: the whole.
        """
        own = instruction.arrays
        if own is not None and whose is not None:
            return to_record({name: own[name] for name in needed(own, whose)})
        if own is not None:  # often that of the client before, too
            if self._last is None or self._last[0] is not own:
                self._last = own, to_record(own)
            return self._last[1]
        if self.whole is None:
            self.whole = to_record(self.arrays)
        if whose is None:
            return self.whole
        if whose not in self._cut:
            self._cut[whose] = found = ArrayRecord()
            for name in needed(self.arrays, whose):
                found[name] = self.whole[name]
        return self._cut[whose]
