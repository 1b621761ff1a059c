"""Rounds that another system trained: taken over from npz files, and unlearned from."""

import numpy as np
import pytest
from typer.testing import CliRunner

import fedunlearn
from experiments.cli import app
from experiments.runs.folder import RunFolder
from tests.experiments.api.test_run import SMALL
from tests.support.undrawn import undrawn
from unlearning.errors import ConfigError, HistoryError
from unlearning.records.history import History
from unlearning.records.importing import import_rounds

OURS = ["fed-eraser", "fed-accum", "no-t"]


def written(folder, rounds):
    """Write rounds, each (model, {client: (examples, update)}), as another system might."""
    folder.mkdir()
    for number, (model, replies) in enumerate(rounds, 1):
        arrays = {f"global/{name}": array for name, array in model.items()}
        for client, (examples, update) in replies.items():
            arrays[f"examples/{client}"] = np.array(examples)
            arrays |= {f"update/{client}/{name}": array for name, array in update.items()}
        np.savez(folder / f"round-{number}.npz", **arrays)
    return folder


def small(value):
    return {"w": np.array([value], np.float32)}


def test_golden_two_rounds_and_the_mean_after_them(tmp_path):
    """1 + (3 x 4 + 1 x -4) / 4 = 3 after the first round, 3 + 2 = 5 after the second."""
    rounds = [(small(1), {0: (3, small(4)), 1: (1, small(-4))}), (small(3), {1: (7, small(2))})]
    after = import_rounds(written(tmp_path / "in", rounds), tmp_path / "out")
    assert after["w"].item() == 5
    with History.open(tmp_path / "out", readonly=True) as history:
        assert history.rounds == (1, 2)
        assert history.participants(1) == {0: 3, 1: 1}
        assert history.initial["w"].item() == 1
        assert history.update(2, 1)["w"].item() == 2


def test_the_model_after_another_rule_is_taken_from_final(tmp_path):
    folder = written(tmp_path / "in", [(small(1), {0: (1, small(4))})])
    np.savez(folder / "final.npz", **{"global/w": small(9)["w"]})
    assert import_rounds(folder, tmp_path / "out")["w"].item() == 9


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"update/0/w": [1.0], "examples/0": 1}, "holds no model"),
        ({"global/w": [1.0]}, "holds no update"),
        ({"global/w": [1.0], "update/0/w": [1.0]}, "needs both"),
        ({"global/w": [1.0], "update/0/w": [1.0], "examples/0": 0}, "no place"),
        ({"global/w": [1.0], "update/0/w": [np.nan], "examples/0": 1}, "not finite"),
        ({"global/w": [1.0], "update/0/w": [1.0, 2.0], "examples/0": 1}, "not like the model"),
        ({"global/w": [1.0], "weights": [1.0]}, "no place"),
        ({"global/w": np.array([{}])}, "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named_and_nothing_is_left(arrays, said, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    np.savez(folder / "round-1.npz", **{name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(HistoryError, match=said):
        import_rounds(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gap_between_rounds_is_refused(tmp_path):
    folder = written(tmp_path / "in", [(small(1), {0: (1, small(4))})] * 3)
    (folder / "round-2.npz").unlink()
    with pytest.raises(HistoryError, match="without a gap; found: 1, 3"):
        import_rounds(folder, tmp_path / "out")


def test_strategies_answer_from_an_imported_history_as_from_our_own(tmp_path, monkeypatch):
    """Our own rounds, taken over from files: the same models, bit for bit."""
    undrawn(monkeypatch.setattr)
    alone = {key: value for key, value in SMALL.items() if key != "requests"}
    learned = fedunlearn.run(alone, strategy="fed-eraser", out=tmp_path / "learned")
    rounds = []
    with History.open(RunFolder.open(learned.path).history(0), readonly=True) as history:
        for number in history.rounds:
            examples = history.participants(number)
            replies = {k: (n, history.update(number, k)) for k, n in examples.items()}
            rounds.append((history.arrays(number), replies))
    source = written(tmp_path / "in", rounds)
    made = CliRunner().invoke(app, ["import-history", str(source), str(tmp_path / "taken")])
    assert made.exit_code == 0, made.output
    start = {
        "model": str(tmp_path / "taken/model.safetensors"),
        "history": str(tmp_path / "taken/history"),
    }
    ours = fedunlearn.compare(SMALL, strategies=OURS, out=tmp_path / "ours").to_frame()
    theirs = fedunlearn.compare(SMALL, strategies=OURS, start=start, out=tmp_path / "theirs")
    digests = [f.set_index("strategy").model_digest[OURS] for f in (ours, theirs.to_frame())]
    assert digests[0].equals(digests[1])
    with pytest.raises(ConfigError, match="use `fedunlearn compare`"):
        fedunlearn.run(SMALL, strategy="no-t", start=start, out=tmp_path / "no")
    with pytest.raises(ConfigError, match="needs model"):
        fedunlearn.load_config(SMALL, start={"history": "x"})
    other = {**start, "history": str(tmp_path / "other")}
    import_rounds(written(tmp_path / "in2", [(small(1), {0: (1, small(4))})]), tmp_path / "other")
    with pytest.raises(ConfigError, match="another model"):
        fedunlearn.compare(SMALL, strategies=OURS, start=other, out=tmp_path / "no")
