from __future__ import annotations

import json
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from clients.app import make_client_app
from clients.participant import Holdings, Participant, arrays_of
from clients.together import Together
from experiments.federation.grids import LocalGrid, StackedGrid
from strategies.wire import to_record
from tests.support.side_by_side import mlp, shard
from unlearning.protocol import Scalar, Wire
from unlearning.records.memory import ClientMemory

KEEP = {
    "synthetic": {
        "share": 0.2,
        "image_rate": 0.5,
        "matching_steps": 1,
        "matching_batch": 64,
    }
}


def trained(home: Path, *, stacked: bool) -> tuple[dict[str, bytes], list[MetricRecord]]:
    """Let three clients train and keep examples; return what they kept, and what they said."""
    model = mlp()
    members = [
        Participant(
            client,
            Holdings(shard(20 + client, client), shard(3, 99), lambda seed: model, model),
            ClientMemory(home, client),
        )
        for client in range(3)
    ]

    def member(context: Context, config: dict[str, Scalar]) -> Participant:
        return members[int(str(context.node_config["partition-id"]))]

    app = make_client_app(member)
    grid = StackedGrid(app, 3, Together(member)) if stacked else LocalGrid(app, 3)
    record = to_record(arrays_of(model))
    asked = []
    for client, node in enumerate(grid.get_node_ids()):
        config = ConfigRecord(
            {
                Wire.STEP: "train",
                Wire.SEED: json.dumps([0, 1, client]),
                Wire.KEEP: json.dumps(KEEP),
                Wire.SETTINGS: '{"local_epochs": 1, "batch_size": 8, "learning_rate": 0.1}',
            }
        )
        content = RecordDict({Wire.ARRAYS: record, Wire.CONFIG: config})
        asked.append(Message(content, node, "train"))
    said = [reply.content[Wire.METRICS] for reply in grid.send_and_receive(asked)]
    kept = {str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*.safetensors")}
    return kept, [numbers for numbers in said if isinstance(numbers, MetricRecord)]


def test_keepsakes_are_made_side_by_side_as_each_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = trained(tmp_path / "alone", stacked=False)
    tried, _ = trained(tmp_path / "tried", stacked=True)
    monkeypatch.delattr(Participant, "_run")  # the sizes are known by now
    together, said = trained(tmp_path / "together", stacked=True)
    assert len(alone) == 3
    assert alone == tried == together
    for numbers in said:
        for whole, part in (
            (Wire.CLIENT_SECONDS, Wire.KEEP_SECONDS),
            (Wire.EXAMPLES_PROCESSED, Wire.KEEP_EXAMPLES),
        ):
            assert 0 < float(str(numbers[f"{part}synthetic"])) < float(str(numbers[whole]))
