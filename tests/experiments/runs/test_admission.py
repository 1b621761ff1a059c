import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config.loading import from_mapping
from experiments.runs.admission import admit, compose
from experiments.runs.folder import FederationFacts, RunFolder
from unlearning.errors import ConfigError, RequestError, UnsupportedRequestError
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path)


@pytest.fixture
def faces(tmp_path):
    """Return a federation of two tasks: clients 0 and 1 know smiles, 1 to 3 know ages."""
    return make(tmp_path, tasks=("smile", "age"), holders={"smile": (0, 1), "age": (1, 2, 3)})


def make(path, **changes):
    made = RunFolder.claim(path, {"rounds": 20})
    facts = {"clients": {0: 10, 1: 12, 2: 8, 3: 5}, "classes": (0, 1, 2)}
    made.write_federation(FederationFacts(**{**facts, **changes}))
    return made


def refused(folder, request, words, kind=RequestError):
    """Check that a request is refused in words and leaves no trace."""
    before = [known.id for known in Ledger(folder.ledger).requests()]
    with pytest.raises(kind, match=words) as caught:
        admit(folder, request)
    assert "\n" not in str(caught.value)
    assert [known.id for known in Ledger(folder.ledger).requests()] == before


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ({"clients": [3]}, Scope.CLIENT),
        ({"clients": [1, 3]}, Scope.CLIENT),
        ({"clients": [3], "samples": [(1, 4)]}, Scope.SAMPLE),
        ({"clients": [3], "classes": [2]}, Scope.SAMPLE),
        ({"classes": [2]}, Scope.CLASS),
    ],
)
def test_a_request_enters_the_ledger_with_the_scope_it_means(folder, options, scope):
    request = compose(**options)
    assert request.scope is scope
    assert admit(folder, request)
    assert Ledger(folder.ledger).requests() == [request]


def test_features_are_refused_where_examples_have_none_and_outside_them(tmp_path, faces):
    asked = Request(Scope.FEATURE, features=(4,))
    refused(faces, asked, "feature 4: .* no values to withdraw .* text, several tasks or behind a")
    table = make(tmp_path / "table", features=4, shape=(4,))
    refused(table, asked, r"unknown feature 4 \(known: 0 to 3\)")
    assert admit(table, Request(Scope.FEATURE, features=(3,)))


@pytest.mark.parametrize(
    "name", ["", "..", "../up", "a/b", "a\\b", "two\nlines", "x" * 121, "\x1b[2J"]
)
def test_an_id_is_a_line_and_a_folder(folder, name):
    refused(folder, compose(clients=[3], id=name), "cannot be the id of a request")
    with pytest.raises(ConfigError, match=r"requests.0: .*cannot be the id"):
        from_mapping({"requests": [{"scope": "client", "clients": [3], "id": name}]})


def test_lists_of_samples_belong_to_the_clients_in_order():
    request = compose(clients=[3, 1, 3], samples=[(4, 8), (2,), (0,)])
    assert request.samples == {1: (2,), 3: (0, 4, 8)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to forget is named"),
        ({"samples": [(1,)]}, r"0 client\(s\) but 1 list"),
        ({"clients": [1, 2], "samples": [(1,)]}, r"2 client\(s\) but 1 list"),
        ({"clients": [1], "samples": [(1,)], "classes": [0]}, "separate requests"),
        ({"classes": [0], "tasks": ["smile"]}, "separate requests"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, words):
    with pytest.raises(RequestError, match=words):
        compose(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clients": [7]}, r"unknown client 7 \(known: 0 to 3\)"),
        ({"clients": [7], "samples": [(0,)]}, "unknown client 7"),
        ({"clients": [3], "samples": [(4, 5)]}, "unknown sample 5 of client 3: .* 0 to 4"),
        ({"clients": [3], "samples": [(-1,)]}, "unknown sample -1 of client 3"),
        ({"classes": [9]}, r"unknown class 9 \(known: 0 to 2\)"),
        ({"tasks": ["smile"]}, "unknown task 'smile'"),
        ({"clients": [3], "at_round": 21}, "round 21 lies after the last of the 20 rounds"),
        ({"clients": [0, 1, 2, 3]}, "would leave no client to train"),
    ],
)
def test_what_does_not_exist_is_refused_and_leaves_no_trace(folder, options, words):
    refused(folder, compose(**options), words)


def test_clients_with_gaps_are_listed(tmp_path):
    refused(make(tmp_path, clients={2: 5, 9: 5}), compose(clients=[3]), r"\(known: 2, 9\)")


def test_the_same_id_twice_is_one_request(folder):
    request = compose(clients=[3])
    assert admit(folder, request)
    assert not admit(folder, request)
    assert len(Ledger(folder.ledger).requests()) == 1


def test_what_is_forgotten_or_waits_to_be_need_not_be_asked_again(folder):
    admit(folder, compose(clients=[3]))
    for options in ({"clients": [3]}, {"clients": [3], "samples": [(1,)]}):
        refused(folder, compose(**options), "forgotten already or waits to be .*received")
    admit(folder, compose(clients=[1], samples=[(1, 2)]))
    refused(folder, compose(clients=[1], samples=[(2,)]), "forgotten already")
    assert admit(folder, compose(clients=[1], samples=[(2, 3)]))
    assert admit(folder, compose(clients=[1, 3]))  # client 1 is new


def test_a_class_counts_as_forgotten_only_where_it_is_forgotten_everywhere(folder):
    admit(folder, compose(clients=[1], classes=[2]))
    assert admit(folder, compose(classes=[2]))
    refused(folder, compose(classes=[2]), "forgotten already")
    refused(folder, compose(clients=[0], classes=[2]), "forgotten already")


def test_a_refused_request_may_be_asked_again(folder):
    first = compose(clients=[3])
    admit(folder, first)
    Ledger(folder.ledger).add(first.id, "refused", reason="not served")
    assert admit(folder, compose(clients=[3]))


def test_those_who_wait_to_leave_count_as_gone(folder):
    admit(folder, compose(clients=[0, 1]))
    admit(folder, compose(clients=[2]))
    refused(folder, compose(clients=[3]), r"no client to train \(clients 0, 1, 2 have left or wait")


def test_those_who_have_left_count_as_gone(folder):
    request = compose(clients=[0, 1, 2])
    admit(folder, request)
    with Ledger(folder.ledger) as ledger:
        ledger.add(request.id, "started")
        ledger.add(request.id, "fulfilled")
    refused(folder, compose(clients=[3]), "would leave no client to train")


def test_a_comparison_takes_no_requests(tmp_path):
    folder = make(tmp_path, kind="compare")
    with pytest.raises(RequestError, match=r"is a comparison.*\[\[requests\]\]"):
        admit(folder, compose(clients=[3]))
    assert not folder.ledger.exists()


def test_a_scope_that_the_strategy_does_not_serve_is_refused(tmp_path):
    folder = make(tmp_path, strategy="fed-odd", scopes=("client",))
    words = r"'fed-odd' does not serve requests of scope 'class' \(it serves: client\)"
    refused(folder, Request(Scope.CLASS, classes=(1,)), words, UnsupportedRequestError)
    assert admit(folder, compose(clients=[3]))


def test_asking_needs_neither_flower_nor_torch():
    code = (
        "import sys, experiments.runs.admission, experiments.runs.folder, experiments.cli;"
        "sys.exit(bool({'flwr', 'torch', 'ray', 'sklearn'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# Several tasks --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"tasks": ["smile"]}, {"tasks": ["smile"], "clients": [1]}])
def test_a_task_may_be_asked_for_everywhere_or_at_some_that_hold_it(faces, options):
    request = compose(**options)
    assert request.scope is Scope.TASK
    assert admit(faces, request)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ["smlie"]}, "unknown task 'smlie'; did you mean 'smile'"),
        ({"classes": [1]}, r"class 1: .*several tasks \(smile, age\).*ask for a task"),
        ({"classes": [1], "clients": [2]}, "a label means another thing in each"),
        ({"tasks": ["smile"], "clients": [2]}, r"client 2 holds no example .*that do: 0, 1\)"),
        ({"tasks": ["smile"], "clients": [0, 1]}, "nobody else holds task 'smile'.*leave the cl"),
    ],
)
def test_what_makes_no_sense_of_several_tasks_is_refused(faces, options, words):
    refused(faces, compose(**options), words)


def test_the_last_that_holds_a_task_is_told_to_ask_for_the_task_itself(faces):
    admit(faces, compose(clients=[2]))
    admit(faces, compose(tasks=["age"], clients=[3]))
    refused(faces, compose(tasks=["age"], clients=[1]), "nobody else holds task 'age'")
    assert admit(faces, compose(tasks=["age"]))


def test_of_two_processes_only_one_takes_the_last_client_but_one(tmp_path):
    """Looked at and written in one transaction: else both of the last two could leave."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from experiments.runs.admission import admit\n"
        "from experiments.runs.folder import RunFolder\n"
        "from unlearning.errors import RequestError\n"
        "from unlearning.request import Request, Scope\n"
        "client = int(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        admit(RunFolder(Path(line.strip())), Request(Scope.CLIENT, clients=(client,)))\n"
        "        print('in', flush=True)\n"
        "    except RequestError:\n"
        "        print('refused', flush=True)\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(client)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for client in (0, 1)
    ]
    try:
        assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
        for number in range(10):
            folder = RunFolder.claim(tmp_path / f"run-{number}", {"rounds": 3})
            folder.write_federation(FederationFacts({0: 10, 1: 10}))
            Ledger(folder.ledger).close()
            for process in both:
                process.stdin.write(f"{folder.path}\n")
                process.stdin.flush()
            assert sorted(process.stdout.readline().strip() for process in both) == [
                "in",
                "refused",
            ]
    finally:
        for process in both:
            process.communicate(timeout=30)


def test_a_run_of_an_older_version_that_is_over_promises_nothing(tmp_path):
    folder = make(tmp_path)
    folder.status.write_text('{"state": "finished"}')
    refused(folder, compose(clients=[3]), "would never be served; run its config again")
    (folder.path / "intent.json").write_text("{}")
    assert admit(folder, compose(clients=[3]))
