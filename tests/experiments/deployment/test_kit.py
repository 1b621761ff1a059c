"""What a site holds is what it joined with, and what it withdrew stays withdrawn."""

import numpy as np
import pytest
from PIL import Image

from experiments.data.sites import pin, read_site
from experiments.deployment import processes
from experiments.deployment.kit import Kit
from unlearning.errors import ConfigError, RequestError
from unlearning.request import Omission


@pytest.fixture
def kit(tmp_path):
    made, _ = Kit.init(tmp_path / "kit", "clinic")
    return made._changed(client=0)


def test_grey_pictures_are_held_as_the_federation_declares_them(kit, tmp_path):
    """One channel where the federation has one: the digest is that of what was joined with."""
    for label in ("0", "1"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for place in range(3):
            values = np.full((4, 4), 40 * place + 9, np.uint8)
            Image.fromarray(values).save(tmp_path / "pictures" / label / f"{place}.png")
    source = str(tmp_path / "pictures")
    pin(kit.home, read_site(source, (1, 4, 4), 2), 0, 0.0)
    again = Kit.open(kit.folder).hold(source)
    _, wish = again.ask(None, None, None, records=("1/2.png",))
    assert wish["body"]["samples"] == [5]
    _, wish = again.ask(None, None, None, features=("0:1x2:4",))
    assert wish["body"]["features"] == [2, 3]
    assert wish["body"]["called"] == ["0:1x2:4"]


def test_what_was_withdrawn_stays_withdrawn_in_new_data(kit, tmp_path):
    rows = np.arange(12, dtype=np.float32).reshape(4, 3) / 12
    np.savez(tmp_path / "a.npz", x=rows, y=[0, 1, 0, 1], columns=["age", "dose", "sex"])
    held = kit.hold(str(tmp_path / "a.npz"))
    pin(kit.home, read_site(str(tmp_path / "a.npz")), 0, 0.0)
    held._memory(1).bury(Omission(features=frozenset({1}), samples=frozenset({2})))
    np.savez(tmp_path / "b.npz", x=rows + 1, y=[1, 0, 1, 0])
    said = "is not what this site joined with .*; put it back, or begin a new epoch"
    with pytest.raises(ConfigError, match=said):
        held.hold(str(tmp_path / "b.npz"))
    (tmp_path / "a.npz").write_bytes((tmp_path / "b.npz").read_bytes())
    with pytest.raises(ConfigError, match=said):
        held.ask(None, None, None, features=["dose"])
    _, epoch = held.replace_data(str(tmp_path / "b.npz"))
    assert epoch == 2
    assert held._memory(2).tombstones == Omission(features=frozenset({1}))


def test_rows_that_do_not_exist_or_are_of_no_data_are_refused_in_words(kit, tmp_path):
    with pytest.raises(ConfigError, match="has no data yet; name them with `site start --data`"):
        kit.ask(None, None, None, features=["dose"])
    np.savez(tmp_path / "a.npz", x=np.ones((4, 3), np.float32), y=[0, 1, 0, 1])
    held = kit.hold(str(tmp_path / "a.npz"))
    pin(kit.home, read_site(str(tmp_path / "a.npz")), 0, 0.0)
    with pytest.raises(ConfigError, match="row 4 does not exist; rows go from 0 to 3"):
        held.ask(None, [1, 4], None)
    with pytest.raises(RequestError, match=r"unknown feature 3 \(known: 0 to 2\)"):
        held.ask(None, None, None, features=["3"])
    assert kit.letters("outbox") == []


def test_who_was_forgotten_begins_no_new_epoch_and_who_takes_part_not_now(
    kit, tmp_path, monkeypatch
):
    np.savez(tmp_path / "a.npz", x=np.ones((4, 3), np.float32), y=[0, 1, 0, 1])
    source = str(tmp_path / "a.npz")
    held = kit.hold(source)
    pin(kit.home, read_site(source), 0, 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(processes, "is_running", lambda pid_file: pid_file == held.pid_file)
        with pytest.raises(ConfigError, match="takes part right now; stop it first"):
            held.replace_data(source)
    held._memory(1).bury(Omission(everything=True))
    with pytest.raises(ConfigError, match="its key is used up; make a new folder"):
        held.replace_data(source)
    assert held.pin.epoch == 1
