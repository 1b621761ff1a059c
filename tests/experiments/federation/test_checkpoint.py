"""What is kept of a run between its rounds: it does not grow, and it comes back whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.federation.checkpoint import Checkpoints, Saved
from experiments.runs.details import Answer, Point
from strategies.federation import Moment
from unlearning.errors import StorageError


def point(number: int) -> Point:
    return Point(
        strategy="original", seed=0, phase="learn", round=number, wall_s=1.0, test_accuracy=0.5
    )


def moment(rounds: int, served: tuple[str, ...] = ()) -> Moment:
    arrays = {"w": np.full(4, rounds, np.float32)}
    return Moment(arrays, rounds, 10, -1, {}, None, frozenset(), {}, rounds, served, {})


def saved(rounds: int, answers: int = 0) -> Saved:
    told = tuple(Answer(request=f"r{i}", seed=0, strategy="original") for i in range(answers))
    served = tuple(f"r{i}" for i in range(answers))
    points = tuple(point(number) for number in range(1, rounds + 1))
    return Saved(moment(rounds, served), points, rounds, (), (7,) * answers, told)


def test_what_is_written_per_round_does_not_grow(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "kept")
    sizes = []
    for rounds in range(1, 101):
        kept.save(saved(rounds, answers=3))
        sizes.append(max(path.stat().st_size for path in tmp_path.rglob("*.moment")))
    assert sizes[-1] <= sizes[0] + 8  # digits of its numbers
    assert len(list(tmp_path.rglob("*.told"))) == 1
    assert len((tmp_path / "kept" / "points.jsonl").read_text().splitlines()) == 100


@pytest.mark.parametrize("back", [0, 1])
def test_a_moment_comes_back_with_what_was_seen_by_then(tmp_path: Path, back: int) -> None:
    kept = Checkpoints(tmp_path)
    for rounds, answers in ((1, 0), (2, 1), (3, 1), (4, 2)):
        kept.save(saved(rounds, answers))
    rounds, answers = ((4, 2), (3, 1))[back]
    again = Checkpoints(tmp_path)
    found = again.find((rounds, tuple(f"r{i}" for i in range(answers))))
    assert found is not None
    wanted = saved(rounds, answers)
    assert (found.points, found.done, found.read) == (wanted.points, wanted.done, wanted.read)
    assert found.answers == wanted.answers
    # Going on from there: what came after is gone, and what follows is added.
    again.save(saved(5, answers))
    last = Checkpoints(tmp_path).find((5, found.moment.served))
    assert last is not None
    assert last.points == saved(5, answers).points
    assert len(list(tmp_path.glob("*.told"))) == 1


def test_points_that_are_lost_make_a_moment_none(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(saved(1))
    kept.save(saved(2))
    lines = (tmp_path / "points.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "points.jsonl").write_text(lines[0])
    assert Checkpoints(tmp_path).find((2, ())) is None
    found = Checkpoints(tmp_path).find((1, ()))
    assert found is not None
    assert len(found.points) == 1


def test_nothing_that_was_told_stays_of_a_moment_that_is_removed(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(saved(1, 1))
    kept.save(saved(2, 2))
    kept.settle()
    assert [path.name for path in sorted(tmp_path.glob("0*"))] == [
        "00000002.moment",
        "00000002.told",
    ]


def test_a_copy_of_what_clients_keep_that_a_kill_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """It is made before the moment is written; between the two there is no moment of its number."""
    homes = tmp_path / "homes"
    homes.mkdir()
    (homes / "kept").write_text("1")
    kept = Checkpoints(tmp_path / "kept", homes)
    kept.save(saved(1))
    for number in (2, 7):
        (tmp_path / "kept" / f"{number:08d}.homes").mkdir()
    (tmp_path / "kept" / "00000002.homes" / "half").write_text("made")
    again = Checkpoints(tmp_path / "kept", homes)
    again.save(saved(2))
    found = {path.name for path in (tmp_path / "kept").glob("*.homes")}
    assert found == {"00000001.homes", "00000002.homes"}
    assert [path.name for path in (tmp_path / "kept" / "00000002.homes").iterdir()] == ["kept"]


@pytest.mark.parametrize("broken", ["_told_path", "_path"])
def test_what_a_passing_fault_kept_from_being_written_comes_with_the_next_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(saved(1))
    with monkeypatch.context() as patched:
        patched.setattr(kept, broken, lambda number: tmp_path / "not there" / "file")
        with pytest.raises(StorageError):
            kept.save(saved(2, 1))
    kept.save(saved(3, 1))
    found = Checkpoints(tmp_path).find((3, ("r0",)))
    assert found is not None
    assert found.answers == saved(3, 1).answers
    assert found.points == saved(3).points


def test_points_half_written_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(saved(1))

    def half(path: Path, *_: object, **__: object) -> None:
        with open(path, "a", encoding="utf-8") as file:  # Path's own is replaced
            file.write('{"strategy": "or')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", half)
        with pytest.raises(OSError, match="No space left"):
            kept.save(saved(2))
    assert Checkpoints(tmp_path).find((1, ())) is not None
    kept.save(saved(3))
    found = Checkpoints(tmp_path).find((3, ()))
    assert found is not None
    assert found.points == saved(3).points
