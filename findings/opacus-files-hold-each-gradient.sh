#!/usr/bin/env bash
# opacus 1.6.0, torch 2.14.1: a saved private model holds each gradient of the last batch, without noise.
#
# Expected: the file holds the parameters, which are what the noise was for. Found: Opacus hangs `grad_sample`
# and `summed_grad` on the parameters, and pickling a parameter takes along what hangs on it: `torch.save` of
# the module, wrapped or not, writes one gradient a person, and after `to_standard_module` still their clipped
# sum without noise. Of a linear layer such a gradient is the person's row times one number a class: the row can
# be divided out. `state_dict` is clean, and so is a module after `optimizer.zero_grad()`: training loops call
# that first, not last.
#
# Seen: 15 gradients a parameter in the file, and the 15 rows of the last batch read from them to eight places;
# after `to_standard_module` `summed_grad` alone; nothing after `zero_grad`.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q torch==2.14.1 opacus==1.6.0 numpy==2.4.6
OMP_NUM_THREADS=1 "$there/v/bin/python" -W ignore - <<'PY'
import io

import opacus
import torch

print("opacus", opacus.__version__, "torch", torch.__version__)
torch.manual_seed(0)
rows, labels = torch.randn(64, 3), torch.randint(0, 2, (64,))
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows, labels), batch_size=16)
module = torch.nn.Linear(3, 2)
model, optimizer, data = opacus.PrivacyEngine(accountant="rdp").make_private(
    module=module,
    optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
    data_loader=data,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
)
for batch, answers in data:
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(batch), answers).backward()
    optimizer.step()


def read(saved):
    """What hangs on the parameters of a model that was saved and loaded."""
    to = io.BytesIO()
    torch.save(saved, to)
    to.seek(0)
    loaded = torch.load(to, weights_only=False)
    return [vars(parameter) for parameter in loaded.parameters()]


for name, saved in {"module": module, "wrapped": model}.items():
    weight, bias = read(saved)
    # Of a linear layer the weight's gradient is the bias's times the person's row.
    got = weight["grad_sample"][:, 0] / bias["grad_sample"][:, :1]
    print(f"{name}: gradients of {len(got)} people; rows read from them off by {(got - batch).abs().max():.1g}")
    assert len(got) == len(batch) > 0 and torch.allclose(got, batch, atol=1e-3)
plain = read(model.to_standard_module())
print("to_standard_module:", [sorted(hung) for hung in plain])
assert all("summed_grad" in hung and "grad_sample" not in hung for hung in plain)
assert not any(vars(value) for value in module.state_dict().values())
optimizer.zero_grad()
hung = [value for hung in read(module) for value in hung.values() if value is not None]
print("after zero_grad:", hung)
assert not hung
PY
