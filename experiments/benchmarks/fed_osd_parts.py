"""What the parts of FedOSD do on digits: projection, guarded recovery, and where to stop.

``python -m experiments.benchmarks.fed_osd_parts [--factor 6] [--rounds 0.25] [--recovery 5]``
prints a table: the strategy as shipped, without its parts, and ended early by the loss or by the
accuracy on the forget set; all on one federation of ``digits_client.toml``, beside retraining.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.benchmarks.rows import CONFIGS
from experiments.config.loading import load
from experiments.tuning.trials import MEASURES, Try, measure

__all__ = ["VARIANTS", "main"]

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "the authors' guard": {},
    "without projection": {"projection": False},
    "guard only against the way back": {"guard": "back"},  # as shipped
    "recovery without its guard": {"guard": "off"},
    "end at a loss of .1": {"stop_loss": 0.1},
    "end at an accuracy of .3": {"stop_accuracy": 0.3},
    "end at an accuracy of .1": {"stop_accuracy": 0.1},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="fed_osd_parts")
    parser.add_argument("--factor", type=float, default=6.0)
    parser.add_argument("--rounds", type=float, default=0.25)
    parser.add_argument("--recovery", type=int, default=5)
    given = parser.parse_args(arguments)
    config = load(CONFIGS / "digits_client.toml", [f"recovery_rounds={given.recovery}"])
    step = {"rate_factor": given.factor, "unlearning_rounds": given.rounds, "guard": "both"}
    tries = [Try(name, "fed-osd", {**step, **options}) for name, options in VARIANTS.items()]
    head = ["fed-osd", "examples", *(name.replace("_", " ") for name in MEASURES)]
    sys.stdout.write(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}\n")
    for name, found in measure(config, [config.seed], tries).items():
        numbers = [found.cost, *(found.scores[measured] for measured in MEASURES)]
        cells = [found.failed] if found.failed else [f"{number:.3f}" for number in numbers]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
