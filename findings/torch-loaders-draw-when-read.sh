#!/usr/bin/env bash
# torch 2.14.1: reading a `DataLoader` draws from the global generator, shuffled or not.
#
# Expected: a loop over held-out examples, in order and in the same process, changes nothing. Found: each `iter()`
# draws a seed for workers that do not exist, so a model that is looked at between two epochs learns from
# other batches afterwards than one that is not: retraining is no longer the same run. A loader with a generator of
# its own draws from that one, and its shuffle is then not `randperm` of that generator's seed.
#
# Seen: state of the generator changed by reading; the order of the next epoch differs by one look.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q torch==2.14.1 numpy==2.4.6
"$there/v/bin/python" - <<'PY'
import torch
from torch.utils.data import DataLoader, TensorDataset

print("torch", torch.__version__)
held_out = DataLoader(TensorDataset(torch.arange(8)), batch_size=4)


def second_epoch(looks):
    torch.manual_seed(0)
    training = DataLoader(TensorDataset(torch.arange(8)), batch_size=8, shuffle=True)
    list(training)
    for _ in range(looks):
        list(held_out)
    return next(iter(training))[0].tolist()


torch.manual_seed(0)
before = torch.get_rng_state()
list(held_out)
changed = not torch.equal(before, torch.get_rng_state())
print("reading changes the generator:", changed)
orders = [second_epoch(looks) for looks in (0, 0, 1)]
print("second epoch without a look:", orders[0], "with one:", orders[2])

own = DataLoader(
    TensorDataset(torch.arange(8)), batch_size=8, shuffle=True,
    generator=torch.Generator().manual_seed(1),
)
shuffled = next(iter(own))[0].tolist()
drawn = torch.randperm(8, generator=torch.Generator().manual_seed(1)).tolist()
print("own generator:", shuffled, "randperm of its seed:", drawn)
assert changed
assert orders[0] == orders[1] != orders[2]
assert shuffled != drawn
PY
