import numpy as np
import pytest

from strategies.robustness import Robust
from unlearning.errors import ConfigError, FederationError
from unlearning.protocol import Reply

START = {"w": np.array([10.0], np.float32)}


def reply(client, step, num_examples=1):
    update = {"w": np.array([step], np.float32)}
    return Reply(client, num_examples, {"w": START["w"] + update["w"]}, update=update)


def steps(robust, *replies):
    return [float(found.update["w"][0]) for found in robust.cleaned(START, replies)]


def test_every_client_brings_the_median():
    found = list(Robust("median").cleaned(START, [reply(0, 1.0), reply(1, 2.0), reply(2, 500.0)]))
    assert [float(one.update["w"][0]) for one in found] == [2.0, 2.0, 2.0]
    assert [float(one.arrays["w"][0]) for one in found] == [12.0, 12.0, 12.0]
    assert [one.client for one in found] == [0, 1, 2]


def test_every_client_brings_the_trimmed_mean():
    replies = [reply(k, v) for k, v in enumerate([1.0, 2.0, 3.0, 6.0, 9e5])]
    assert steps(Robust("trimmed-mean", trim=0.2), *replies) == pytest.approx([11 / 3] * 5)


def test_the_bound_is_a_multiple_of_the_longest_median_of_learning():
    robust = Robust("norm-bound", factor=2.0)
    assert steps(robust, reply(0, 1e9)) == [1e9]  # nothing was learned: nothing is known
    rounds = {1: [4.0, 5.0, 600.0], 2: [1.0, 2.0, 3.0]}
    for number, lengths in rounds.items():
        list(robust.watch(number, [reply(k, v) for k, v in enumerate(lengths)]))
    assert robust.limit == 10.0
    assert steps(robust, reply(0, -3.0), reply(1, -400.0)) == [-3.0, -10.0]


def test_watching_changes_nothing():
    replies = [reply(0, 1.0), reply(1, 2.0)]
    assert list(Robust("norm-bound").watch(1, replies)) == replies


def test_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"guard\.aggregate is 'krum'"):
        Robust("krum")


def test_replies_without_a_model_cannot_be_combined():
    with pytest.raises(FederationError, match="client 3 sent no model"):
        list(Robust("median").cleaned(START, [Reply(3, 1, {})]))


def test_no_reply_is_no_reply():
    assert steps(Robust("median")) == []
