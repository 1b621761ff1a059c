"""What a network says of images is the same, to rounding, however they lie in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from experiments.federation import predicting
from experiments.federation.predicting import Looked, Predictor
from experiments.models import networks
from unlearning.arrays import Array, Arrays


class _Viewing(nn.Module):
    """Takes it for granted that rows lie in a row, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3, padding=1))
        self.last = nn.Linear(72, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.last(self.layer(x).view(len(x), -1))
        return found


def image_networks() -> list[nn.Module]:
    small = {"hidden": 16, "width": 4}
    blocks = {"groups": 2, "width": 4}
    return [
        networks.build("cnn", (1, 8, 8), 10, small),
        networks.build("resnet18", (1, 8, 8), 10, blocks),
        _Viewing(),
    ]


@pytest.mark.parametrize("place", [0, 1, 2], ids=["ours", "of-blocks", "of-ones-own"])
def test_chunks_and_order_change_nothing_but_rounding(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "_IMAGES", 3)
    model = image_networks()[place]
    arrays = networks.to_arrays(model)
    x = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(x)).softmax(1).numpy()
    found = Predictor(image_networks()[place], 10, lambda x: x).probabilities(arrays, x, "cpu")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_our_networks_lie_channels_last_and_others_as_they_were() -> None:
    for model, is_ours in zip(image_networks(), (True, True, False), strict=True):
        Predictor(model, 10, lambda x: x)
        weights = [one.weight for one in model.modules() if isinstance(one, nn.Conv2d)]
        # Of one channel or one pixel a weight lies both ways.
        wide = [one for one in weights if one.shape[1] > 1 and one.shape[2] > 1]
        last = {one.is_contiguous(memory_format=torch.channels_last) for one in wide}
        assert last == {is_ours}


class _Counting(_Viewing):
    """Counts the examples that it looks at."""

    looked = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.looked += len(x)
        return super().forward(x)


def test_a_model_that_is_judged_twice_looks_at_the_same_images_once() -> None:
    """After a round, and again when a request is judged; of the two models before and after it."""
    network = _Counting()
    predictor = Predictor(network, 10, lambda x: x)
    before = networks.to_arrays(network)
    after = {name: array + 1 for name, array in before.items()}
    later = {name: array - 1 for name, array in before.items()}
    x = np.random.default_rng(0).random((8, 1, 8, 8), np.float32)

    def asked(arrays: Arrays, images: Array = x) -> tuple[Array, int]:
        network.looked = 0
        return predictor.probabilities(Looked(arrays), images, "cpu"), network.looked

    first, seen = asked(before)
    assert seen == 8
    assert asked(after)[1] == 8
    again, seen = asked(dict(before))
    assert not seen
    assert again.tobytes() == first.tobytes()
    assert not again.flags.writeable
    assert asked(before, x[:3])[1] == 3
    assert asked(later)[1] == 8  # the one that was not asked for longest is let go
    assert asked(after)[1] == 8
    fresh = Predictor(_Counting(), 10, lambda x: x).probabilities(after, x, "cpu")
    assert asked(after)[0].tobytes() == fresh.tobytes()


def test_sets_are_looked_at_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further look of a network with convolutions turns all of its weights over."""
    monkeypatch.setattr(predicting, "_IMAGES", 4)
    network = _Counting()
    predictor, arrays = Predictor(network, 10, lambda x: x), networks.to_arrays(network)
    draw = np.random.default_rng(0).random
    sets = [draw((n, 1, 8, 8), np.float32) for n in (3, 0, 1, 5)]
    chunks: list[int] = []
    network.register_forward_pre_hook(lambda module, given: chunks.append(len(given[0])))
    hashed: list[int] = []
    digest = predicting.digest
    monkeypatch.setattr(predicting, "digest", lambda a: (hashed.append(len(a)), digest(a))[1])
    at_once = predictor.of_each(Looked(arrays), sets, "cpu")
    assert chunks == [5, 4]
    assert hashed == [len(arrays), 1, 1, 1, 1]  # the model and every set, once
    for x, said in zip(sets, at_once, strict=True):
        alone = Predictor(_Counting(), 10, lambda x: x).probabilities(arrays, x, "cpu")
        found = predictor.probabilities(arrays, x, "cpu")
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)
        assert found.shape == (len(x), 10)
        assert found is said
    assert chunks == [5, 4]
    dense = Predictor(networks.build("linear", (1, 8, 8), 10), 10, lambda x: x)
    own = networks.to_arrays(networks.build("linear", (1, 8, 8), 10))
    for x, said in zip(sets, dense.of_each(own, sets, "cpu"), strict=True):
        assert said.tobytes() == dense.probabilities(own, x, "cpu").tobytes()


def test_a_model_is_loaded_once_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every set of a round is put to one model; one of the same values may be another's."""
    loaded: list[object] = []
    load = networks.load
    monkeypatch.setattr(networks, "load", lambda n, a: (loaded.append(a), load(n, a)))
    network = networks.build("linear", (1, 4, 4), 3)
    predictor = Predictor(network, 3, lambda x: x)
    x = np.random.default_rng(0).random((5, 1, 4, 4), np.float32)
    arrays = Looked(networks.to_arrays(network))
    first = predictor.probabilities(arrays, x, "cpu")
    assert (predictor.probabilities(arrays, x[:2], "cpu") == first[:2]).all()
    assert len(loaded) == 1
    other = Looked({name: array + 1 for name, array in arrays.items()})
    predictor.logits(other, x, "cpu")
    assert (predictor.probabilities(arrays, x, "cpu") == first).all()
    plain = dict(arrays)
    predictor.probabilities(plain, x, "cpu")
    predictor.probabilities(plain, x, "cpu")  # it may have changed in between
    assert [one is arrays for one in loaded] == [True, False, True, False, False]


def test_a_model_that_was_changed_in_place_is_looked_at_anew() -> None:
    network = _Counting()
    predictor, arrays = Predictor(network, 10, lambda x: x), networks.to_arrays(network)
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    first = predictor.probabilities(arrays, x, "cpu")
    arrays["last.bias"][0] += 1
    assert (predictor.probabilities(arrays, x, "cpu") != first).any()
