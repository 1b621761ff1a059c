from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unlearning import arrays as named
from unlearning.arrays import Arrays

FLOATS = (np.float16, np.float32, np.float64)


def model(value: float = 1.0) -> Arrays:
    """Return one entry of every kind."""
    return {
        "weight": np.full((2, 3), value, np.float32),
        "bias": np.full(3, value, np.float64),
        "norm.running_mean": np.full(3, value, np.float32),
        "norm.num_batches_tracked": np.array(int(value), np.int64),
        "mask": np.array([True, False]),
    }


def small(dtype: type = np.float32) -> st.SearchStrategy[np.ndarray]:
    # Numbers of a model's size: their sums and differences neither overflow nor lose all digits.
    elements = st.floats(-64, 64, width=16)
    return hnp.arrays(dtype, (3, 2), elements=elements)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Arrays, Arrays]:
    """Return two models with the same names, shapes and dtypes."""
    left: Arrays = {}
    right: Arrays = {}
    for name in draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True)):
        dtype = draw(st.sampled_from(FLOATS[1:]))
        left[name], right[name] = draw(small(dtype)), draw(small(dtype))
    left["counter"], right["counter"] = np.array(3), np.array(5)
    return left, right


def test_kinds_of_entries() -> None:
    assert [name for name, array in model().items() if named.is_parameter(name, array)] == [
        "weight",
        "bias",
    ]
    assert list(named.parameters(model())) == ["weight", "bias"]


@pytest.mark.parametrize(
    "name", ["bn.running_mean", "bn.running_var", "bn.num_batches_tracked", "running_var"]
)
def test_statistics_of_normalisation_are_buffers(name: str) -> None:
    assert named.is_buffer(name, np.zeros(2, np.float32))


def test_a_bias_is_no_buffer_whatever_stands_before_it() -> None:
    assert not named.is_buffer("running_mean.bias", np.zeros(2, np.float32))


def test_copy_is_deep() -> None:
    original = model()
    named.copy(original)["weight"][0, 0] = 9
    assert original["weight"][0, 0] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": None}, "'weight' is missing"),
        ({"more": np.zeros(1)}, "'more' is not part of the model"),
        ({"weight": np.ones(6, np.float32)}, "'weight' has shape (6,), expected (2, 3)"),
        ({"weight": np.ones((2, 3))}, "'weight' has dtype float64, expected float32"),
        ({"mask": np.array([1, 0])}, "'mask' has dtype int64, expected bool"),
    ],
)
def test_mismatch_names_the_first_difference(change: dict[str, object], words: str) -> None:
    other = {name: a for name, a in (model() | change).items() if a is not None}
    assert words in str(named.mismatch(model(), other))


def test_mismatch_looks_at_neither_values_nor_order() -> None:
    assert named.mismatch(model(), dict(reversed(model(7).items()))) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["weight", "bias", "norm.running_mean"])
def test_one_bad_number_is_not_finite(name: str, value: float) -> None:
    bad = model()
    bad[name].flat[-1] = value
    assert named.is_finite(model())
    assert not named.is_finite(bad)


def test_nbytes_counts_the_values() -> None:
    assert named.nbytes(model()) == 6 * 4 + 3 * 8 + 3 * 4 + 8 + 2


def test_digest_depends_on_everything_but_the_order_of_names() -> None:
    base = named.digest(model())
    assert named.digest(dict(reversed(model().items()))) == base
    assert named.digest({**model(), "weight": np.asfortranarray(model()["weight"])}) == base
    others = [
        {**model(), "weight": model()["weight"].reshape(3, 2)},
        {**model(), "weight": model()["weight"].astype(np.float64)},
        {**model(), "weight": np.nextafter(model()["weight"], 2)},
        {name: array for name, array in model().items() if name != "mask"},
        {f"{name}s": array for name, array in model().items()},
        {**model(), "weight": -0.0 * model()["weight"]},
    ]
    assert len({named.digest(other) for other in others} | {base}) == len(others) + 1


def test_pairs_need_the_same_names() -> None:
    left, right = {"a": np.ones(1), "b": np.ones(1)}, {"a": np.ones(1), "c": np.ones(1)}
    for operation in (named.add, named.subtract):
        with pytest.raises(ValueError, match="'b' is on one side only"):
            operation(left, right)


@given(pairs())
def test_add_and_subtract_undo_each_other(pair: tuple[Arrays, Arrays]) -> None:
    left, right = pair
    back = named.subtract(named.add(left, right), right)
    assert named.mismatch(left, back) is None
    for name in left:
        np.testing.assert_allclose(back[name], left[name], atol=1e-4)


def test_scale_leaves_buffers_alone() -> None:
    scaled = named.scale(model(2), -0.5)
    assert named.mismatch(model(), scaled) is None
    assert (scaled["weight"] == -1).all()
    assert (scaled["bias"] == -1).all()
    for name in ("norm.running_mean", "norm.num_batches_tracked", "mask"):
        np.testing.assert_array_equal(scaled[name], model(2)[name])


@given(pairs())
def test_an_update_leads_from_start_to_end(pair: tuple[Arrays, Arrays]) -> None:
    start, end = pair
    arrived = named.apply_update(start, named.delta(start, end))
    assert named.mismatch(start, arrived) is None
    np.testing.assert_array_equal(arrived["counter"], 5)
    for name in start:
        np.testing.assert_allclose(arrived[name], end[name], atol=1e-4)


def test_counters_are_copied_not_added() -> None:
    update = named.delta(model(2), model(7))
    assert update["norm.num_batches_tracked"] == 7
    assert (update["norm.running_mean"] == 5).all()
    assert named.apply_update(model(7), update)["norm.num_batches_tracked"] == 7


def test_apply_update_sums_in_float64() -> None:
    """One ulp of 1 is 2**-23 in float32: half of it rounds down to 1, the least bit more up.

    That bit is lost where the update is brought to float32 first.
    """
    start = {"w": np.array([1.0], np.float32)}
    end = named.apply_update(start, {"w": np.array([2.0**-24 + 2.0**-50])})
    assert end["w"].dtype == np.float32
    assert end["w"][0] == np.float32(1 + 2.0**-23)


def test_weighted_mean_by_hand() -> None:
    """(1 * 2 + 3 * -6) / 4 = -4; the counter is that of the last."""
    mean = named.weighted_mean([(1, model(2)), (3, model(-6))])
    for name in ("weight", "bias", "norm.running_mean"):
        assert mean[name].dtype == np.float64
        assert (mean[name] == -4).all()
    assert mean["norm.num_batches_tracked"] == -6
    assert mean["norm.num_batches_tracked"].dtype == np.int64


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 99), small()), min_size=1, max_size=6))
def test_weighted_mean_is_numpys_average(terms: list[tuple[int, np.ndarray]]) -> None:
    weights, rows = zip(*terms, strict=True)
    mean = named.weighted_mean((weight, {"w": row}) for weight, row in terms)
    wanted = np.average(np.array(rows, np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(mean["w"], wanted, rtol=1e-12, atol=1e-12)


@given(st.lists(small(), min_size=1, max_size=5))
def test_mean_of_equals_is_itself_to_the_last_bit_of_float32(rows: list[np.ndarray]) -> None:
    mean = named.weighted_mean((3, {"w": rows[0]}) for _ in rows)
    np.testing.assert_array_equal(mean["w"].astype(np.float32), rows[0])


def test_sums_leave_their_terms_alone() -> None:
    terms = [(2.0, model(2)), (3.0, model(3))]
    named.weighted_sum(terms)
    named.weighted_mean(terms)
    assert named.digest(terms[0][1]) == named.digest(model(2))


def test_products_are_formed_in_float64() -> None:
    """Three times the float32 next to 0.1 is no float32."""
    tenth = np.float32(0.1)
    total = named.weighted_sum([(3, {"w": np.array([tenth])})] * 2)
    assert total["w"][0] == 2 * (3 * float(tenth)) != float(6 * tenth)


def test_sums_hold_one_term_at_a_time() -> None:
    alive = 0

    class Counted(dict[str, np.ndarray]):
        def __init__(self) -> None:
            nonlocal alive
            alive += 1
            super().__init__(w=np.ones(2))

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def terms() -> object:
        for _ in range(20):
            assert alive <= 1
            yield 1.0, Counted()

    assert named.weighted_mean(terms())["w"].tolist() == [1, 1]  # type: ignore[arg-type]


def test_no_terms_and_no_weight_are_errors() -> None:
    with pytest.raises(ValueError, match="no arrays to sum"):
        named.weighted_sum([])
    with pytest.raises(ValueError, match="no arrays to sum"):
        named.weighted_mean([])
    for weights in ([0, 0], [1, -1], [np.nan, 1]):
        with pytest.raises(ValueError, match="expected a positive number"):
            named.weighted_mean((weight, {"w": np.ones(1)}) for weight in weights)


@given(pairs())
def test_norm_is_that_of_all_parameters_as_one_vector(pair: tuple[Arrays, Arrays]) -> None:
    left, right = pair
    flat = [
        np.concatenate([a[n].astype(np.float64).ravel() for n in left if n != "counter"])
        for a in pair
    ]
    assert named.norm(left) == pytest.approx(np.linalg.norm(flat[0]))
    assert named.dot(left, right) == pytest.approx(flat[0] @ flat[1])


def test_norm_of_chosen_names_and_without_buffers() -> None:
    assert named.norm(model(3)) == pytest.approx(3 * np.sqrt(6 + 3))
    assert named.norm(model(3), ["bias"]) == pytest.approx(3 * np.sqrt(3))
    assert named.norm({}) == 0


def test_large_arrays_have_the_bits_of_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked out in memory that is used again, in whatever order an array lies."""
    draw = np.random.default_rng(0).normal
    one: Arrays = {
        "wide": draw(size=(50, 40)),
        "turned": draw(size=(40, 30, 3)).astype(np.float32).transpose(2, 0, 1),
        "half": draw(size=7).astype(np.float16),
        "number": np.asarray(np.float32(3)),
        "none": np.zeros((0, 2), np.float32),
        "counter": np.array(4),
    }
    other = {name: array * 3 for name, array in one.items()}
    small = named.norms(one), named.norm(one), named.dot(one, other), named.dot(one, one)
    monkeypatch.setattr(named, "_PIECE", 1)
    large = named.norms(one), named.norm(one), named.dot(one, other), named.dot(one, one)
    assert large == small


def test_an_update_may_take_the_place_of_what_it_is_made_from() -> None:
    start = model(1) | {"mask@state": np.array([-np.inf, 1.0]), "counter": np.array(2)}
    end = model(4) | {"mask@state": np.array([-np.inf, 3.0]), "counter": np.array(5)}
    places = {name: array.ctypes.data for name, array in end.items()}
    wanted = named.delta(start, end)
    found = named.delta(start, end, own=True)
    assert named.digest(found) == named.digest(wanted)
    assert found["weight"].ctypes.data == places["weight"]
    assert start["weight"].tolist() == model(1)["weight"].tolist()


def test_norm_does_not_overflow_small_dtypes() -> None:
    assert named.norm({"w": np.full(4, 6e4, np.float16)}) == pytest.approx(2 * 6e4, rel=1e-3)


def test_a_state_in_parts_is_hashed_again_only_where_it_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted, not timed: of ten parts one changes, so one is hashed."""
    hashed: list[int] = []
    plain = named._own

    def counted(array: named.Array) -> str:
        hashed.append(array.nbytes)
        return plain(array)

    monkeypatch.setattr(named, "_own", counted)
    state = {f"gram/{k}": named.frozen(np.full((50, 50), float(k))) for k in range(10)}
    before = named.fingerprint(state)
    assert len(hashed) == 10
    assert named.fingerprint(dict(state)) == before
    assert len(hashed) == 10
    after = named.fingerprint({**state, "gram/3": named.frozen(np.zeros((50, 50)))})
    assert after != before
    assert len(hashed) == 11
    writeable = {name: np.array(array) for name, array in state.items()}
    assert named.fingerprint(writeable) == before
    writeable["gram/3"][0, 0] += 1
    assert named.fingerprint(writeable) != before


def test_nobody_writes_to_a_frozen_array() -> None:
    source = np.zeros(3)
    kept = named.frozen(source)
    source[0] = 1
    assert kept.tolist() == [0, 0, 0]
    assert named.frozen(kept) is kept
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 1


def test_the_fingerprint_of_a_plain_model_is_its_digest() -> None:
    model = {"w": np.arange(6.0).reshape(2, 3).T, "n": np.array(3), "none": np.zeros((0, 2))}
    assert named.fingerprint(model) == named.digest(model)


def test_words_have_the_names_that_the_module_has() -> None:
    state = {named.marked("mask"): np.array([np.nan])}
    assert named.not_finite(state) == "mask"
    assert named.mismatch(state, {}) == "array 'mask' is missing"
    assert named.mismatch({}, state) == "array 'mask' is not part of the model"
    other = {named.marked("mask"): np.zeros(2)}
    assert "array 'mask' has shape" in str(named.mismatch(state, other))


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (3,), (1 << 15,), (301, 333), (70_001,)])
def test_a_sum_piece_by_piece_has_the_bits_of_a_sum_at_once(
    shape: tuple[int, ...], kind: str
) -> None:
    generator = np.random.default_rng(0)
    total = np.asarray(generator.standard_normal(shape))
    array = np.asarray(generator.standard_normal(shape)).astype(kind)
    expected = total + array.astype(np.float64) * 0.37
    turned = named.plus(np.array(total, order="F"), np.array(array, order="F"), 0.37)
    assert np.array_equal(turned, expected)
    assert np.array_equal(named.plus(total, array, 0.37), expected)
