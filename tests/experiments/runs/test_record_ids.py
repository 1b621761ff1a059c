"""Records asked for by their own ids: found among what is trained on, refused by name otherwise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.config.loading import from_mapping
from experiments.federation import launch
from experiments.federation.task import Scenario, task
from experiments.runs.admission import admit, compose
from experiments.runs.folder import FederationFacts, RunFolder
from experiments.runs.record_ids import RecordIds
from strategies.global_model.fine_tune import FineTune
from tests.support.undrawn import undrawn
from unlearning.arrays import Arrays
from unlearning.errors import ConfigError, RequestError
from unlearning.records.history import History
from unlearning.request import Request, Scope

KNOWN = {0: ["ann", "bob", "cid"], 1: ["dan", "bob"]}


def folder_with_ids(path: Path) -> RunFolder:
    folder = RunFolder.claim(path, {"rounds": 20})
    folder.write_federation(FederationFacts(clients={0: 3, 1: 2}, classes=(0, 1)))
    RecordIds.of(KNOWN, ["eve"]).write(folder.records)
    return folder


def own_data(path: Path, rows: int = 60) -> tuple[dict[str, Any], list[str]]:
    """Write data with ids; return the config that reads them, and the ids."""
    rng = np.random.default_rng(1)
    ids = [f"p{number}" for number in rng.permutation(rows)]
    x, y = rng.random((rows, 4), np.float32), np.arange(rows) % 2
    np.savez(path, x=x, y=y, id=np.array(ids), x_test=x[:10], y_test=y[:10])
    raw = {
        "rounds": 2,
        "recovery_rounds": 1,
        "strategy": "retrain",
        "device": "cpu",
        "data": {"name": f"npz:{path}", "clients": 3},
        "model": {"name": "mlp", "hidden": 4},
        "engine": {"grid": "local"},
    }
    return raw, ids


@pytest.mark.parametrize(
    ("records", "clients", "found"),
    [
        (["cid"], (), {0: (2,)}),
        (["bob"], (), {0: (1,), 1: (1,)}),  # of one person, at two clients
        (["bob", "dan"], (1,), {1: (0, 1)}),
    ],
)
def test_ids_name_positions(
    tmp_path: Path, records: list[str], clients: tuple[int, ...], found: dict[int, tuple[int, ...]]
) -> None:
    folder = folder_with_ids(tmp_path / "run")
    asked = compose(
        clients=clients, records=records, known=lambda: RecordIds.read(folder.records), id="a"
    )
    assert asked == Request(Scope.SAMPLE, samples=found, records=tuple(records), id="a")
    assert admit(folder, asked)
    with folder.open_ledger() as ledger:
        (known,) = ledger.requests()
    assert known.records == tuple(sorted(records))
    assert records[0] in known.describe()


@pytest.mark.parametrize(
    ("records", "clients", "words"),
    [
        (["zoe"], (), "unknown record 'zoe'"),
        (["ann", "zoe"], (), "unknown record 'zoe'"),
        (["ann"], (1,), "unknown record 'ann': no training sample at client 1"),
        (["eve"], (), "record 'eve' is held out"),
        (["Ann"], (), "letter by letter"),
    ],
)
def test_what_is_not_trained_on_is_refused_by_name(
    records: list[str], clients: tuple[int, ...], words: str
) -> None:
    known = RecordIds.of(KNOWN, ["eve"])
    with pytest.raises(RequestError, match=words):
        known.find(records, clients)


def test_no_id_lies_in_the_run_folder_in_the_clear(tmp_path: Path) -> None:
    folder = folder_with_ids(tmp_path / "run")
    written = b"".join(path.read_bytes() for path in folder.path.iterdir())
    assert not any(one.encode() in written for ids in KNOWN.values() for one in ids)


def test_a_run_without_ids_and_a_damaged_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the data of this run have no ids"):
        RecordIds.read(tmp_path / "records.json")
    (tmp_path / "records.json").write_text("{")
    with pytest.raises(ConfigError, match=r"records\.json is damaged"):
        RecordIds.read(tmp_path / "records.json")


def test_ids_follow_their_rows_to_the_clients(tmp_path: Path) -> None:
    raw, ids = own_data(tmp_path / "own.npz")
    made = task(Scenario.of(from_mapping(raw)))
    rows = dict(zip(ids, np.load(tmp_path / "own.npz")["x"], strict=True))
    trained = 0
    for record, row in rows.items():
        try:
            ((client, (place,)),) = made.find_records([record]).items()
        except RequestError as error:
            assert "held out" in str(error)  # noqa: PT017
            continue
        trained += 1
        assert np.array_equal(made.client(client).train_x[place], row)
    assert trained == sum(made.facts().clients.values())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"scope": "sample", "records": ["p1"], "samples": [1], "clients": [0]}, "no samples"),
        ({"scope": "class", "classes": [1], "records": ["p1"]}, "give scope = 'sample'"),
    ],
)
def test_a_config_that_mixes_them_up_is_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_mapping({"requests": [entry]})


def test_unknown_ids_of_a_config_are_refused_before_the_start(tmp_path: Path) -> None:
    raw, _ = own_data(tmp_path / "own.npz")
    asked = {"scope": "sample", "records": ["nobody"]}
    config = from_mapping({**raw, "requests": [asked]})
    with pytest.raises(RequestError, match="unknown record 'nobody'"):
        launch.run(config, tmp_path / "run", observer=lambda _: None)
    assert not (tmp_path / "run").exists()
    bare = from_mapping({**raw, "data": {"name": "digits", "clients": 3}, "requests": [asked]})
    with pytest.raises(RequestError, match="data set 'digits' has none"):
        launch.run(bare, tmp_path / "run", observer=lambda _: None)


def test_records_are_forgotten_and_named_to_the_end(tmp_path: Path) -> None:
    """From the config and from the command line; ledger and receipt name them."""
    raw, ids = own_data(tmp_path / "own.npz")
    probe = task(Scenario.of(from_mapping(raw)))
    trained = [one for one in ids if _place(probe, one)]
    first, second = trained[:2]
    config = from_mapping({**raw, "requests": [{"scope": "sample", "records": [first]}]})
    out = tmp_path / "run"
    launch.run(config, out, observer=lambda _: None)
    said = CliRunner().invoke(app, ["request", str(out), "--records", "nobody"])
    assert said.exit_code == 2
    assert "unknown record 'nobody'" in said.output
    said = CliRunner().invoke(app, ["request", str(out), "--records", second, "--id", "b", "--now"])
    assert said.exit_code == 0, said.output
    assert f"forget record {second} (1 sample(s) of client" in said.output
    with RunFolder.open(out).open_ledger(readonly=True) as ledger:
        assert [(one.records, ledger.state(one.id)) for one in ledger.requests()] == [
            ((first,), "fulfilled"),
            ((second,), "fulfilled"),
        ]
    made = CliRunner().invoke(
        app, ["receipt", "make", str(out), "b", "--out", str(tmp_path / "receipt")]
    )
    assert made.exit_code == 0, made.output
    receipt = json.loads((tmp_path / "receipt" / "receipt.json").read_text())
    assert second in json.dumps(receipt)
    assert second in (tmp_path / "receipt" / "receipt.html").read_text()


NOTED: list[dict[int, tuple[int, ...]]] = []


class Noting(FineTune):
    """Notes what it is asked to forget."""

    def prepare(self, request: Request, history: History, arrays: Arrays) -> tuple[Arrays, int]:
        """Keep the model as it is."""
        NOTED.append(dict(request.samples))
        return arrays, 0


def test_every_seed_of_a_comparison_forgets_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each seed shares the data out anew: the same record lies elsewhere."""
    undrawn(monkeypatch.setattr)
    raw, ids = own_data(tmp_path / "own.npz")
    tasks = [task(Scenario.of(from_mapping(raw), seed)) for seed in (0, 1)]
    where = {one: [_place(made, one) for made in tasks] for one in ids}
    record, places = next((k, v) for k, v in where.items() if all(v) and v[0] != v[1])
    config = from_mapping({**raw, "requests": [{"scope": "sample", "records": [record]}]})
    out = tmp_path / "run"
    NOTED.clear()
    strategies = [f"{__name__}:Noting"]
    launch.compare(config, out, strategies=strategies, seeds=[0, 1], observer=lambda _: None)
    assert places == NOTED
    with RunFolder.open(out).open_ledger(readonly=True) as ledger:
        (received,) = ledger.requests()
        drawn = [e.facts["request"] for e in ledger.events("") if e.event == "drawn"]
    assert [received, *(Request.from_json(one) for one in drawn if isinstance(one, dict))] == [
        Request(Scope.SAMPLE, samples=place, records=(record,), id="config-1", at_round=2)
        for place in places
    ]


def _place(made: Any, record: str) -> dict[int, tuple[int, ...]]:
    try:
        return dict(made.find_records([record]))
    except RequestError:
        return {}
