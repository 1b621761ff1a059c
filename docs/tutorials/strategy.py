"""Write a strategy, and compare it with fine-tuning: it mixes the model with a fresh one."""

import fedunlearn
from unlearning.arrays import is_buffer


class Shrink(fedunlearn.Strategy):
    """Make every weight smaller, so that what follows can move it more."""

    scopes = frozenset({fedunlearn.Scope.CLIENT})

    def __init__(self, *, factor: float = 0.5) -> None:
        super().__init__()
        self.factor = factor

    def prepare(self, request, history, arrays):
        """Return where to start, and how many rounds of the remaining clients follow."""
        smaller = {
            name: array if is_buffer(name, array) else (array * self.factor).astype(array.dtype)
            for name, array in arrays.items()
        }
        return smaller, 2


if __name__ == "__main__":
    found = fedunlearn.compare(
        {
            "rounds": 6,
            "recovery_rounds": 2,
            "data": {"clients": 5},
            "marker": {"kind": "backdoor", "client": 3},
            "requests": [{"scope": "client", "clients": [3]}],
            "engine": {"grid": "local"},
        },
        strategies={Shrink: {"factor": 0.3}},
    )
    print(found.to_frame()[["strategy", "guarantee", "test_accuracy", "backdoor_success"]])
