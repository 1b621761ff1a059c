"""Sites measure models on their own data and tell sums; small groups they keep to themselves."""

import json

from experiments.runs.details import read_details
from experiments.runs.folder import RunFolder
from tests.experiments.deployment.test_keyed import conduct, deployed  # noqa: F401


def measured(out):
    """Return the metrics of the rows by strategy."""
    rows = json.loads((out / "results.json").read_text())["rows"]
    return {row["strategy"]: row["metrics"] for row in rows}


def judged(folder, request):
    with folder.open_ledger(readonly=True) as ledger:
        (found,) = [e for e in ledger.events(request) if e.event == "unlearned"]
    return found.facts["metrics"]


def test_the_sites_tell_what_the_server_cannot_see(deployed, tmp_path):  # noqa: F811
    server, kits, grid, config = deployed
    kits[1].ask(None, None, None)  # to leave
    (request,) = conduct(server, grid, config, tmp_path / "run")
    found = measured(tmp_path / "run")
    assert 0 < found["original"]["retain_accuracy"] <= 1
    assert 0 < found["original"]["forget_accuracy"] <= 1  # the leaver is asked before it deletes
    assert 0 < found["retrain"]["retain_accuracy"] <= 1
    assert found["retrain"]["forget_accuracy"] is None  # and has nothing left afterwards
    assert found["retrain"]["mia_auc"] is None  # single examples nobody shows
    before_deletion = judged(RunFolder.open(tmp_path / "run"), request)
    assert 0 < before_deletion["forget_accuracy"] <= 1
    by_site = read_details(tmp_path / "run").site_measures
    told = {(one.strategy, one.client, one.split) for one in by_site}
    assert ("original", 1, "forget") in told
    assert not {one for one in told if one[0] == "retrain" and one[1] == 1}
    assert all(one.examples >= 10 for one in by_site if not one.few)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "By site" in page


def test_what_they_tell_is_what_the_simulations_judge_sees(deployed, tmp_path):  # noqa: F811
    from experiments.deployment.shares import write_shares
    from experiments.federation import launch
    from tests.experiments.deployment.test_shares import settings

    server, kits, grid, config = deployed
    kits[1].ask(None, None, None)
    conduct(server, grid, config, tmp_path / "run")
    simulated = settings(
        strategy="retrain", requests=[{"scope": "client", "clients": [1], "at_round": 1}]
    )
    write_shares(simulated, tmp_path / "again")
    launch.run(simulated, tmp_path / "simulated", observer=lambda tick: None)
    here, there = measured(tmp_path / "run"), measured(tmp_path / "simulated")
    for strategy in ("original", "retrain"):
        assert here[strategy]["retain_accuracy"] == there[strategy]["retain_accuracy"]
    assert here["original"]["forget_accuracy"] == there["original"]["forget_accuracy"]


def test_a_group_of_fewer_than_ten_is_told_by_nobody(deployed, tmp_path):  # noqa: F811
    server, kits, grid, config = deployed
    kits[1].ask((1, 2), None, None)
    (request,) = conduct(server, grid, config, tmp_path / "run")
    assert judged(RunFolder.open(tmp_path / "run"), request)["forget_accuracy"] is None
    assert measured(tmp_path / "run")["original"]["forget_accuracy"] is None
    few = [one for one in read_details(tmp_path / "run").site_measures if one.few]
    assert {(one.client, one.split) for one in few} == {(1, "forget")}
    assert all(one.examples == 0 and one.accuracy is None for one in few)
    assert "fewer than 10" in (tmp_path / "run" / "report.html").read_text()
