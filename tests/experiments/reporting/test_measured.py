"""What recorded comparisons say of a strategy, and with which defaults they were made."""

from __future__ import annotations

from experiments.reporting.measured import former_defaults, measured
from strategies.registry import options, strategies


def test_former_defaults_are_those_of_options_that_have_changed_since() -> None:
    assert former_defaults()
    for name, given in former_defaults().items():
        known = options(strategies()[name])
        for option, value in given.items():
            assert known[option] != value, f"{name}: {option} = {value} is the default again"


def test_a_section_says_with_which_defaults_its_figures_were_made() -> None:
    told = "\n".join(measured("heavy-ball"))
    assert "Made with `momentum = 0.7`, `step = 1.0`, `share = 0.5` where" in told
    assert "Made with" not in "\n".join(measured("fed-accum"))
