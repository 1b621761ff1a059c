#!/usr/bin/env bash
# flwr 1.42.0 with safetensors 0.8.0: FedAvg pairs arrays by name, what is built upon it by place.
#
# A client that keeps its model in safetensors sends the arrays in the order of that file, which is sorted by
# name: "layer_10" stands before "layer_9". FedAvg, FedAdam and FedMedian do not mind. FedAvgM, QFedAvg and the
# wrapper for differential privacy pair the reply with the server's arrays by place: layers of one shape trade
# their values, nothing is said. (Shapes that do not fit raise.)
#
# Seen: two clients send back unchanged what they were sent, 9 and 10 at start. After one round FedAvg, FedAdam
# and FedMedian hold 9 and 10; FedAvgM (rate .5) 9.5 and 9.5, QFedAvg 9.33 and 9.67, the wrapper (norm .1, no
# noise) 9.93 and 9.07.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q flwr==1.42.0 safetensors==0.8.0 numpy==2.4.6
FLWR_TELEMETRY_ENABLED=0 "$there/v/bin/python" - "$there/model.safetensors" <<'PY'
import logging
import sys
from importlib.metadata import version

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy
from flwr.supercore.task_identity import TaskIdentity
from safetensors.numpy import load_file, save_file

print("flwr", version("flwr"), "safetensors", version("safetensors"))
logging.disable(logging.CRITICAL)
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


class Clients:
    """A grid of two clients that write what they get to a file, and send what they read from it."""

    def get_node_ids(self):
        return [1, 2]

    def send_and_receive(self, messages, timeout=None):
        return [self.answer(message) for message in messages]

    def answer(self, message):
        got = {key: array.numpy() for key, array in message.content["arrays"].items()}
        save_file(got, sys.argv[1])
        arrays = {key: Array(values) for key, values in load_file(sys.argv[1]).items()}
        metrics = MetricRecord({"num-examples": 10, "train_loss": 1.0})
        return Message(
            RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message
        )


def after(made):
    start = {f"layer_{n}": Array(np.full((1, 1), n, dtype=np.float32)) for n in (9, 10)}
    arrays = made.start(Clients(), ArrayRecord(start), num_rounds=1).arrays
    return [round(float(arrays[f"layer_{n}"].numpy()[0, 0]), 2) for n in (9, 10)]


def base():
    return strategy.FedAvg(fraction_evaluate=0.0)


seen = {
    "FedAvg": after(base()),
    "FedAdam": after(strategy.FedAdam(fraction_evaluate=0.0)),
    "FedMedian": after(strategy.FedMedian(fraction_evaluate=0.0)),
    "FedAvgM": after(strategy.FedAvgM(fraction_evaluate=0.0, server_learning_rate=0.5)),
    "QFedAvg": after(strategy.QFedAvg(client_learning_rate=0.1, fraction_evaluate=0.0)),
    "DP": after(strategy.DifferentialPrivacyServerSideFixedClipping(base(), 0.0, 0.1, 2)),
}
for name, layers in seen.items():
    print(f"{name}: layer_9 is {layers[0]}, layer_10 is {layers[1]}")
assert seen["FedAvg"] == seen["FedAdam"] == seen["FedMedian"] == [9, 10]
assert seen["FedAvgM"] == [9.5, 9.5]
assert seen["QFedAvg"] == [9.33, 9.67]
assert seen["DP"] == [9.93, 9.07]
PY
