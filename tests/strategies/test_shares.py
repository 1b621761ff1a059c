"""Options that are shares of the config's rounds and rates."""

import pytest

from strategies.federation import Federation
from strategies.registry import strategies
from strategies.shares import check_rounds, faster, rounds_of, step_rate
from unlearning.errors import ConfigError
from unlearning.protocol import Instruction


@pytest.mark.parametrize(
    ("value", "rounds", "expected"),
    [(0, 20, 0), (0.25, 20, 5), (0.01, 20, 1), (0.5, 3, 2), (1, 20, 1), (7.0, 20, 7), (0.4, 0, 1)],
)
def test_below_one_it_is_a_share_and_from_one_a_number(value, rounds, expected):
    assert rounds_of(value, rounds) == expected


@pytest.mark.parametrize("value", [-1, 2.5])
def test_neither_a_share_nor_a_whole_number_is_refused(value):
    with pytest.raises(ConfigError, match="warmup"):
        check_rounds("warmup", value)


def test_a_rate_of_zero_follows_that_of_training():
    federation = Federation(train={"learning_rate": 0.05})
    assert step_rate(0.0, 6.0, federation) == pytest.approx(0.3)
    assert step_rate(0.2, 6.0, federation) == 0.2


def test_faster_rounds_leave_what_an_instruction_says_itself():
    federation = Federation(train={"learning_rate": 0.05})
    asked = {0: Instruction(), 1: Instruction(settings={"learning_rate": 1.0})}
    after = faster(asked, 4.0, federation)
    assert [found.settings["learning_rate"] for found in after.values()] == [0.2, 1.0]
    assert faster(asked, 1.0, federation) == asked


def test_what_may_be_tuned_are_options_and_the_defaults_lie_in_the_ranges():
    for name, cls in strategies().items():
        made = cls() if cls.tunable else None
        for option, span in cls.tunable.items():
            assert span.low <= getattr(made, option) <= span.high, (name, option)
