"""Run folders and finished runs for the tests of pages over several runs; no federation."""

from __future__ import annotations

import tomli_w

from experiments.families.kin import family_of
from experiments.families.measures import MEASURES, Course, Finished, Measured
from experiments.runs.details import Point, write_details
from experiments.runs.results import Row, write_results
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

ASKED = Request(Scope.CLIENT, clients=(3,), at_round=2, id="wish")
# strategy: guarantee, test accuracy at the end, backdoor success, examples, course after round 2
STRATEGIES = {
    "original": ("none", 0.90, 0.95, 400, ()),
    "retrain": ("exact", 0.92, 0.01, 1000, (("unlearn", 0.2), ("unlearn", 0.7), ("recover", 0.92))),
    "fine-tune": ("approximate", 0.91, 0.60, 200, (("recover", 0.91),)),
    "fed-eraser": ("approximate", 0.91, 0.02, 500, (("unlearn", 0.5), ("recover", 0.91))),
    "fed-recovery": ("approximate", 0.89, 0.03, 200, (("recover", 0.89),)),
}


def write_run(folder, *, seeds=(0, 1, 2), partitioner="iid", strategies=tuple(STRATEGIES)):
    """Write the files of a finished comparison whose numbers are those above."""
    folder.mkdir(parents=True)
    config = {
        "seed": 0,
        "data": {"name": "digits", "clients": 10, "partitioner": partitioner, "held_out": 0.2},
        "model": {"name": "mlp"},
        "marker": {"kind": "backdoor", "client": 3},
    }
    if partitioner != "iid":
        config["data"]["alpha"] = 0.3
    rows, points, phases = [], [], []
    for name in strategies:
        guarantee, test, backdoor, examples, course = STRATEGIES[name]
        for seed in seeds:
            noise = 0.001 * seed
            rows.append(
                Row(
                    strategy=name,
                    seed=seed,
                    scope="client",
                    guarantee=guarantee,
                    metrics={
                        "retain_accuracy": test,
                        "forget_accuracy": 0.3,
                        "test_accuracy": test + noise,
                        "mia_auc": 0.5,
                        "backdoor_success": backdoor,
                        "prediction_distance": 0.0,
                    },
                    cost={
                        "wall_s": examples / 100,
                        "examples": examples,
                        "client_rounds": examples / 10,
                        "bytes_up": 10.0,
                        "bytes_down": 20.0,
                        "history_bytes": 0 if name == "fine-tune" else 2_000_000,
                    },
                )
            )
            if name == "original":
                points += [
                    Point(strategy=name, seed=seed, phase="learn", round=r, test_accuracy=a + noise)
                    for r, a in ((1, 0.4), (2, 0.90))
                ]
                continue
            points += [
                Point(strategy=name, seed=seed, phase=p, round=3 + i, test_accuracy=a + noise)
                for i, (p, a) in enumerate(course)
            ]
            own = {"wall_s": examples / 200, "examples": examples / 2, "client_rounds": 5}
            phases.append({"strategy": name, "seed": seed, "unlearn": own})
    write_results(folder, config, rows)
    write_details(
        folder,
        {
            "marker": config["marker"],
            "data": {"name": "digits", "clients": 10, "model": "mlp"},
            "requests": ({**ASKED.to_json(), "text": ASKED.describe()},),
            "timeline": tuple(points),
            "phases": tuple(phases),
            "refused": ({"strategy": "ridge", "reason": "does not work on a network"},),
        },
    )
    (folder / "config.toml").write_text(tomli_w.dumps(config))
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.receive(ASKED)
        for seed in seeds:
            branch = ledger.on_branch(f"fed-recovery/seed-{seed}")
            branch.add("wish", "started")
            branch.add("wish", "fulfilled", metrics={"test_accuracy": 0.75})
    return folder


def a_run(name="client-iid", numbers=None, *, partition="iid", scope="client", model="mlp", **more):
    """Return a finished run from ``{strategy: {measure: [value per seed]}}``."""
    lines, seeds = [], set()
    for strategy, found in (numbers or {}).items():
        count = max(map(len, found.values()))
        for seed in range(count):
            own = {m: v[seed] if seed < len(v) else None for m, v in found.items()}
            whole = {m: own.get(m) for m in MEASURES}
            family = family_of(strategy)
            lines.append(Measured(name, strategy, family, "approximate", seed, whole))
            seeds.add(seed)
    values = {
        "name": name,
        "scope": scope,
        "partition": partition,
        "data": "digits",
        "model": model,
        "clients": 10,
        "lines": tuple(lines),
        "courses": {"original": Course((0,), (0.9,), 0), "no-t": Course((1, 2), (0.3, 0.9), 1)},
        "refused": {},
        "seeds": tuple(sorted(seeds)),
        "asked": "client 3",
        "level": 0.9,
        "marker_before": (0.95, 0.94, 0.96),
    }
    return Finished(**{**values, **more})
