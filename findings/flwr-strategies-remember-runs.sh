#!/usr/bin/env bash
# flwr 1.42.0: a second `start` of a strategy goes on where the first left off, whatever arrays it is given.
#
# Expected: `start(grid, initial_arrays)` begins with `initial_arrays`, as FedAvg does, so that a loop which
# trains with and then without a client compares two runs. Found: FedAvgM takes the arrays of the very first
# round and never again: its second run steps from the model that the first one made, and with momentum along
# the first run's direction. FedAdam, FedYogi and FedAdagrad keep their moments. Only a new object forgets.
#
# Seen: a round from 0 toward 1 gives .25 with a new FedAvgM (rate .5) and 38.4 with one that ran toward 100;
# with momentum .5 and -28.3; FedAdam .073 and .125; FedAvg .5 and .5.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q flwr==1.42.0 numpy==2.4.6
FLWR_TELEMETRY_ENABLED=0 "$there/v/bin/python" - <<'PY'
import logging
from importlib.metadata import version

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from flwr.supercore.task_identity import TaskIdentity

print("flwr", version("flwr"))
logging.disable(logging.CRITICAL)
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


class Clients:
    """A grid of two clients that each go half of the way to `aim`."""

    def __init__(self, aim):
        self.aim = aim

    def get_node_ids(self):
        return [1, 2]

    def send_and_receive(self, messages, timeout=None):
        return [self.answer(message) for message in messages]

    def answer(self, message):
        arrays = {
            key: Array((array.numpy() + np.float32(self.aim)) / 2)
            for key, array in message.content["arrays"].items()
        }
        metrics = MetricRecord({"num-examples": 10})
        return Message(
            RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message
        )


def run(strategy, aim, rounds):
    start = ArrayRecord({"w": Array(np.zeros(1, np.float32))})
    done = strategy.start(Clients(aim), start, num_rounds=rounds)
    return float(done.arrays["w"].numpy()[0])


seen = {}
for kind, options in (
    (FedAvg, {}),
    (FedAvgM, {"server_learning_rate": 0.5}),
    (FedAvgM, {"server_momentum": 0.9}),
    (FedAdam, {}),
    (FedYogi, {}),
    (FedAdagrad, {}),
):
    used = kind(fraction_evaluate=0.0, **options)
    run(used, 100, 5)
    again, new = run(used, 1, 1), run(kind(fraction_evaluate=0.0, **options), 1, 1)
    name = kind.__name__ + "".join(options)
    print(f"{name}: with a new object {new:.4f}, with one that ran before {again:.4f}")
    seen[name] = new, again
assert seen["FedAvg"] == (0.5, 0.5)
assert seen["FedAvgMserver_learning_rate"][0] == 0.25 and seen["FedAvgMserver_learning_rate"][1] > 38
assert seen["FedAvgMserver_momentum"][0] == 0.5 and seen["FedAvgMserver_momentum"][1] < -28
for name in ("FedAdam", "FedYogi", "FedAdagrad"):
    assert abs(seen[name][0] - seen[name][1]) > 0.005
PY
