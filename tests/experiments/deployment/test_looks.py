"""When a run's end is asked of Flower: every look starts a program of a second and a half."""

from types import SimpleNamespace

from experiments.deployment import serving


def test_flower_is_asked_how_a_run_ended_when_its_process_is_gone(tmp_path, monkeypatch):
    at_work, left = iter([True, True, True, False]), []

    class Superlink:
        is_whole = True

        @property
        def is_at_work(self):
            left.append(next(at_work))
            return left[-1]

        def state_of(self, run_id):
            assert left == [True, True, True, False]
            return "finished:completed", ""

    monkeypatch.setattr(serving, "_POLL_S", 0.0)
    monkeypatch.setattr(serving, "_is_working", lambda folder: False)
    assert serving._ended(Superlink(), tmp_path, "1") == ("finished:completed", "")


def test_a_run_that_has_not_begun_is_asked_for_once_in_a_while(tmp_path, monkeypatch):
    clock = iter(range(100))
    superlink = SimpleNamespace(
        is_whole=True, is_at_work=False, state_of=lambda run_id: ("finished:failed", "no app")
    )
    monkeypatch.setattr(
        serving, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(clock))
    )
    assert serving._ended(superlink, tmp_path / "none", "1") == ("finished:failed", "no app")
    assert next(clock) == serving._LOOK_S + 2  # at the begin, after each pause, at the look
