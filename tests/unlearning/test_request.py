from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.omissions import IDS, OMISSIONS
from unlearning.errors import RequestError
from unlearning.request import Forgotten, Omission, Request, Scope

SOME = st.lists(IDS, min_size=1, max_size=4).map(tuple)
REST = {"at_round": st.none() | st.integers(0, 99), "asked_by": st.text(max_size=5)}
REQUESTS = st.one_of(
    st.builds(Request, st.just(Scope.CLIENT), clients=SOME, **REST),
    st.builds(Request, st.just(Scope.CLASS), classes=SOME, **REST),
    st.builds(
        Request,
        st.just(Scope.SAMPLE),
        samples=st.dictionaries(IDS, SOME, min_size=1, max_size=3),
        **REST,
    ),
    st.builds(Request, st.just(Scope.SAMPLE), clients=SOME, classes=SOME, **REST),
    st.builds(
        Request,
        st.just(Scope.TASK),
        clients=st.just(()) | SOME,
        tasks=st.lists(st.text(max_size=3), min_size=1, max_size=3).map(tuple),
        **REST,
    ),
)


@given(OMISSIONS)
def test_omission_survives_json(omission: Omission) -> None:
    assert Omission.from_json(json.loads(json.dumps(omission.to_json()))) == omission


@given(OMISSIONS, OMISSIONS, OMISSIONS)
def test_omissions_add_up_like_sets(a: Omission, b: Omission, c: Omission) -> None:
    assert a | b == b | a
    assert (a | b) | c == a | (b | c)
    assert a | a == a
    assert a | Omission() == a
    assert bool(a | b) == (bool(a) or bool(b))


def test_an_empty_omission_leaves_out_nothing() -> None:
    assert not Omission()
    assert Omission.from_json({}) == Omission()
    for one in ({"everything": True}, {"samples": [0]}, {"classes": [0]}, {"tasks": [""]}):
        assert Omission.from_json(one)


@given(REQUESTS)
def test_request_survives_json(request: Request) -> None:
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


@given(REQUESTS)
def test_leavers_are_owners_who_leave_everything(request: Request) -> None:
    whole = {client for client in range(10) if request.omission(client).everything}
    assert whole == request.leavers
    assert request.leavers <= set(request.owners(range(10)))


@given(st.lists(REQUESTS, max_size=4), IDS)
def test_forgotten_is_the_sum_of_its_requests(requests: list[Request], client: int) -> None:
    forgotten = Forgotten()
    for request in requests:
        forgotten = forgotten | request
    assert forgotten.requests == tuple(requests)
    total = forgotten.omission(client)
    assert all(total | request.omission(client) == total for request in requests)
    assert (client in forgotten.clients) == total.everything


def test_forgotten_counts_an_id_once() -> None:
    request = Request(Scope.CLIENT, clients=(1,))
    again = Request(Scope.CLIENT, clients=(2,), id=request.id)
    assert (Forgotten() | request | request | again).requests == (request,)


def test_fields_come_into_one_order() -> None:
    request = Request("sample", samples={3: (5, 1, 5), 1: [2]})  # type: ignore[arg-type,dict-item]
    assert request.scope is Scope.SAMPLE
    assert list(request.samples.items()) == [(1, (2,)), (3, (1, 5))]
    assert Request(Scope.CLIENT, clients=(3, 1, 3)).clients == (1, 3)


def test_ids_are_unique_by_default() -> None:
    assert len({Request(Scope.CLIENT, clients=(1,)).id for _ in range(9)}) == 9


@pytest.mark.parametrize(
    ("scope", "fields"),
    [
        ("client", {}),
        ("client", {"clients": (1,), "classes": (1,)}),
        ("client", {"samples": {1: (1,)}}),
        ("sample", {"clients": (1,)}),
        ("sample", {"classes": (1,)}),
        ("sample", {"clients": (1,), "samples": {1: (1,)}}),
        ("class", {"clients": (1,), "classes": (1,)}),
        ("class", {"tasks": ("a",)}),
        ("task", {"clients": (1,)}),
        ("task", {"tasks": ("a",), "classes": (1,)}),
    ],
)
def test_fields_that_do_not_fit_the_scope_are_refused(scope: str, fields: dict) -> None:
    words = f"scope '{scope}' names {sorted(fields) or 'nothing'}; it needs "
    with pytest.raises(RequestError) as caught:
        Request(scope, **fields)  # type: ignore[arg-type]
    assert words in str(caught.value).replace('"', "'")


def test_an_owner_without_a_sample_is_refused() -> None:
    with pytest.raises(RequestError, match="no sample is named for client 2"):
        Request(Scope.SAMPLE, samples={1: (0,), 2: ()})


@pytest.mark.parametrize(
    ("request_", "owners", "omissions"),
    [
        (
            Request(Scope.CLIENT, clients=(1, 3)),
            (1, 3),
            {1: Omission(everything=True), 2: Omission()},
        ),
        (
            Request(Scope.SAMPLE, samples={0: (4, 2)}),
            (0,),
            {0: Omission(samples=frozenset({2, 4})), 1: Omission()},
        ),
        (
            Request(Scope.SAMPLE, clients=(2,), classes=(7,)),
            (2,),
            {2: Omission(classes=frozenset({7})), 0: Omission()},
        ),
        (
            Request(Scope.CLASS, classes=(7,)),
            (0, 1, 2, 3),
            {0: Omission(classes=frozenset({7}))},
        ),
        (
            Request(Scope.TASK, tasks=("a",)),
            (0, 1, 2, 3),
            {3: Omission(tasks=frozenset({"a"}))},
        ),
        (
            Request(Scope.TASK, tasks=("a",), clients=(0,)),
            (0,),
            {0: Omission(tasks=frozenset({"a"})), 1: Omission()},
        ),
    ],
    ids=["client", "sample", "class-at-client", "class", "task", "task-at-client"],
)
def test_who_leaves_out_what(
    request_: Request, owners: tuple[int, ...], omissions: dict[int, Omission]
) -> None:
    assert request_.owners((3, 1, 0, 2)) == owners
    assert {client: request_.omission(client) for client in omissions} == omissions


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(Scope.CLIENT, clients=(3, 1)), "client 1, 3"),
        (Request(Scope.SAMPLE, samples={0: (4, 2)}), "2 sample(s) of client 0"),
        (Request(Scope.SAMPLE, clients=(2,), classes=(7,)), "class 7 at client 2"),
        (Request(Scope.CLASS, classes=(7, 8)), "class 7, 8"),
        (Request(Scope.TASK, tasks=("a",)), "task a"),
        (Request(Scope.TASK, tasks=("a",), clients=(0,)), "task a at client 0"),
    ],
)
def test_requests_in_words(request_: Request, words: str) -> None:
    assert request_.describe() == words
    assert request_.id not in request_.describe()


@given(st.lists(REQUESTS, max_size=4), IDS)
def test_what_is_forgotten_is_the_sum_however_often_it_is_asked(
    requests: list[Request], client: int
) -> None:
    total = Forgotten(tuple(requests))
    wanted = Omission()
    for request in requests:
        wanted = wanted | request.omission(client)
    assert total.omission(client) == total.omission(client) == wanted
    assert total == Forgotten(tuple(requests))


def test_all_but_one_request_are_added_up_as_if_it_had_never_come() -> None:
    asked = [
        Request(Scope.SAMPLE, samples={0: (at,), at % 2: (at + 1,)}, id=f"r{at}") for at in range(4)
    ]
    forgotten = Forgotten()
    for one in asked:
        forgotten.omission(0)  # known before and after each
        forgotten = forgotten | one
        for other in asked[: asked.index(one) + 1]:
            rest = tuple(r for r in forgotten.requests if r.id != other.id)
            assert forgotten.without(other.id) == Forgotten(rest)
            for client in range(3):
                found = forgotten.without(other.id).omission(client)
                assert found == Forgotten(rest).omission(client)
                assert forgotten.omission(client) == Forgotten(forgotten.requests).omission(client)


def test_records_name_samples_of_their_owners() -> None:
    with pytest.raises(RequestError, match="looked up as samples of their owners; none are named"):
        Request(Scope.CLIENT, clients=(1,), records=("ann",))
    with pytest.raises(RequestError, match="no sample is named for client 2"):
        Request(Scope.SAMPLE, samples={1: (4,), 2: ()}, records=("ann",))
