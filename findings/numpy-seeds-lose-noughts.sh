#!/usr/bin/env bash
# numpy 2.4.6: a seed of several numbers means the same as one with noughts behind it.
#
# `default_rng([seed, round])` and `default_rng([seed, round, 0])` draw the same, since a seed is filled up
# with noughts to four words of 32 bits: noise that a server draws for a round is that of client 0 in it, and
# takes itself out again. A number from 2**32 on is two words, lower one first: seed 2**32 is `[0, 1]`. Behind
# the fourth word a nought counts, and children of `spawn` differ from both.
#
# Seen: equal up to four words, another stream with five; server and client 0 add the same noise.
set -euo pipefail
there=$(mktemp -d); trap 'rm -rf "$there"' EXIT
python3 -m venv "$there/v"
"$there/v/bin/pip" install -q numpy==2.4.6
"$there/v/bin/python" - <<'PY'
import numpy as np

print("numpy", np.__version__)


def drawn(*seed):
    return np.random.default_rng(list(seed)).normal(size=3)


for seeds in ((7,), (7, 0), (7, 0, 0), (7, 0, 0, 0), (7, 0, 0, 0, 0)):
    print(list(seeds), drawn(*seeds).round(3))
assert np.array_equal(drawn(7), drawn(7, 0, 0, 0))
assert not np.array_equal(drawn(7), drawn(7, 0, 0, 0, 0))
server, clients = drawn(7, 3), [drawn(7, 3, client) for client in range(3)]
print("noise of the server less that of client 0:", server - clients[0])
assert np.array_equal(server, clients[0])
assert not np.array_equal(server, clients[1])
assert np.array_equal(drawn(2**32), drawn(0, 1))
print("2**32 draws what [0, 1] draws")
root = np.random.SeedSequence([7, 3])
child = np.random.default_rng(root.spawn(1)[0]).normal(size=3)
assert not np.array_equal(child, server)
print("a spawned child differs")
PY
