#!/usr/bin/env bash
# torch 2.14.1: a vector written into a model is the model's memory from then on.
#
# `vector_to_parameters` does not copy: every parameter becomes a view into the vector. A start point that
# is kept as a vector, to measure afterwards how far training went (the trust region of gradient ascent,
# an update as a difference), moves along, and the distance is 0. The other way round copies:
# `parameters_to_vector`.
#
# Seen: distance from the kept start after a step of SGD: 0.0; from a clone of it: 0.1732.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q torch==2.14.1 numpy==2.4.6
"$there/v/bin/python" - <<'PY'
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

print("torch", torch.__version__)
model = torch.nn.Linear(2, 1)
start = torch.tensor([0.5, -0.5, 0.25])
copy = start.clone()
vector_to_parameters(start, model.parameters())
model(torch.ones(1, 2)).sum().backward()
torch.optim.SGD(model.parameters(), lr=0.1).step()
now = parameters_to_vector(model.parameters()).detach()
print("distance from the start", float((now - start).norm()), "from its copy", float((now - copy).norm()))
assert torch.equal(now, start)
assert abs(float((now - copy).norm()) - 0.1 * 3**0.5) < 1e-6
PY
