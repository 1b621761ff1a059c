#!/usr/bin/env bash
# flwr 1.41.0 with torch: averaged masks come back as their union, averaged counters are cut.
#
# FedAvg averages every array of a model's state as a float, integers and booleans too, and sends them on
# so. `load_state_dict` copies a float into the buffer that is there, strictly and without a word: a
# pruning mask that one client of ten sets is set for all (0.1 is True); BatchNorm's counter of 3 and 4
# batches, 3.5, is 3. A mask has to travel as what it means, or be kept out of the mean.
#
# Seen: mean float64 [1.0, 0.1]; loaded [True, True] where nine of ten say False; counter 3.5 -> 3.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q flwr==1.41.0 torch==2.14.1
FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 "$there/v/bin/python" - <<'PY'
import flwr
import torch
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

print("flwr", flwr.__version__, "torch", torch.__version__)


class Pruned(torch.nn.Module):
    def __init__(self, mask, batches):
        super().__init__()
        self.register_buffer("mask", torch.tensor(mask))
        self.register_buffer("batches", torch.tensor(batches))


def reply(model):
    return RecordDict(
        {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": 8})}
    )


clients = [Pruned([True, place == 0], 3 + place % 2) for place in range(10)]
mean = aggregate_arrayrecords([reply(client) for client in clients], "num-examples")
for name in mean:
    print("mean", name, mean[name].numpy().dtype, mean[name].numpy())
model = Pruned([False, False], 0)
model.load_state_dict(mean.to_torch_state_dict(), strict=True)
print("loaded", model.mask.tolist(), int(model.batches))
assert model.mask.tolist() == [True, True] and int(model.batches) == 3
PY
