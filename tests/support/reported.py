"""A run folder as a report finds it, made of numbers that can be worked out by hand."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

from experiments.reporting.report import render
from experiments.runs.details import Point, write_details
from experiments.runs.results import Row, write_results
from unlearning.records.ledger import Ledger
from unlearning.request import Request, Scope

# strategy: guarantee, forget accuracy, backdoor success, examples processed
STRATEGIES = {
    "original": ("none", 0.95, 0.93, 400_000),
    "retrain": ("exact", 0.25, 0.01, 500_000),
    "fine-tune": ("approximate", 0.70, 0.45, 100_000),
    "fed-eraser": ("approximate", 0.26, 0.02, 200_000),
    "lazy": ("approximate", 0.90, 0.90, 50_000),
}
MINUS = "\N{MINUS SIGN}"
ASKED = Request(Scope.CLIENT, clients=(3,), at_round=2, id="wish-1", asked_by="ada")


def a_row(strategy, seed, *, marker=True, before=None):
    guarantee, forget, backdoor, examples = STRATEGIES[strategy]
    if before is not None and strategy == "original":
        backdoor = before
    return Row(
        strategy=strategy,
        seed=seed,
        scope="client",
        guarantee=guarantee,
        metrics={
            "retain_accuracy": 0.98,
            "forget_accuracy": forget + 0.01 * seed,
            "test_accuracy": 0.95 - 0.002 * seed,
            "mia_auc": 0.51,
            "backdoor_success": backdoor + 0.001 * seed if marker else None,
            "prediction_distance": abs(forget - 0.25),
        },
        cost={
            "wall_s": examples / 1e5,
            "examples": examples,
            "bytes_up": 2_500_000,
            "speedup_examples": None if strategy == "original" else 500_000 / examples,
        },
        model_digest=f"{len(strategy)}{seed}" * 32,
    )


def a_tally(strategy, seed, correct):
    return {
        "strategy": strategy,
        "seed": seed,
        "clients": [0, 2],
        "columns": ["0", "1"],
        "correct": correct,
        "total": [[10, 0], [10, 10]],
        "test_columns": ["0", "1"],
        "test_correct": [sum(row[0] for row in correct), 5],
        "test_total": [20, 10],
    }


def points(seeds=(0,), strategies=("original", "retrain", "fed-eraser")):
    found = []
    for seed in seeds:
        for strategy in strategies:
            phases = (
                [("learn", 1), ("learn", 2)]
                if strategy == "original"
                else [("unlearn", 3), ("unlearn", 4), ("recover", 5)]
            )
            found.extend(
                Point(
                    strategy=strategy,
                    seed=seed,
                    phase=phase,
                    round=at,
                    test_accuracy=0.1 * at + 0.01 * seed,
                    retain_accuracy=0.1 * at,
                    forget_accuracy=0.5,
                    backdoor_success=0.2,
                )
                for phase, at in phases
            )
    return found


def write_run(
    folder, *, strategies=tuple(STRATEGIES), seeds=(0, 1, 2), details=None, ledger=True, **row
):
    """Write results, details and ledger of a comparison."""
    rows = [a_row(name, seed, **row) for seed in seeds for name in strategies]
    write_results(folder, {"seed": 0, "data": {"name": "digits", "root": None}}, rows)
    if ledger:
        with Ledger(folder / "ledger.sqlite") as book:
            book.receive(ASKED)
            branch = book.on_branch("fed-eraser/seed-0")
            branch.add(ASKED.id, "started", options={"interval": 2}, model_before="cd" * 32)
    write_details(
        folder,
        {
            "command": "fedunlearn compare c.toml",
            "versions": {"flwr": "1.41.0"},
            "rounds": {"learned": 2, "recovery": 1},
            "marker": {"kind": "backdoor", "client": 3},
            "requests": [{**ASKED.to_json(), "text": ASKED.describe()}],
            "data": {"name": "digits", "clients": 10, "classes": 10},
            "timeline": points(seeds),
            "phases": [
                {
                    "strategy": "fed-eraser",
                    "seed": seed,
                    "unlearn": {"examples": 150_000, "wall_s": 1.5, "bytes_up": 2_000_000},
                    "recover": {"examples": 50_000, "wall_s": 0.5, "bytes_up": 500_000},
                }
                for seed in seeds
            ],
            "extra": [
                {"strategy": "original", "seed": 0, "mia_null_se": 0.002},
                {"strategy": "lazy", "seed": 0, "array_distance": 0.4, "notes": ["it slept"]},
            ],
            "rocs": [
                {"strategy": name, "seed": seed, "fpr": [0, 0.5, 1], "tpr": [0, at, 1]}
                | {"members": 40, "non_members": 20}
                for seed in seeds
                for name, at in (("original", 0.9), ("fed-eraser", 0.5))
            ],
            "tallies": [
                a_tally(name, seed, right)
                for seed in seeds
                for name, right in (
                    ("original", ((9, 0), (8, 2))),
                    ("retrain", ((9, 0), (9, 4))),
                    ("fed-eraser", ((6, 0), (9, 4))),
                )
            ],
            "refused": [{"strategy": "class-pruning", "reason": "serves class requests only"}],
            **(details or {}),
        },
    )


def an_estimate(value, **more):
    half = 0.02
    return {"value": value, "low": value - half, "high": value + half, "n": 16, **more}


def an_audit():
    """Return an audit of two metrics, one of which fails its card."""
    card = {"passes": True, "reason": "", "false_alarm_rate": 0.05, "false_alarm_low": 0.01}
    card |= {"false_alarm_high": 0.2, "separation_auc": 1.0, "dose_spearman": 1.0}
    card |= {"dose": [[0, 0.5], [25, 0.7], [100, 0.98]]}
    failed = {**card, "passes": False, "separation_auc": 0.51, "dose_spearman": None}
    failed["reason"] = "original and retrained models cannot be told apart"
    shared = {"unit": "fraction", "source": "somebody 2024"}
    numbers = {"original": 0.98, "retrain": 0.5, "fed-eraser": 0.53}
    return {
        "command": "fedunlearn audit c.toml --models 16",
        "key": "ab" * 32,
        "models_per_side": 16,
        "exploratory": False,
        "federations": 96,
        "seconds": 120.5,
        "workers": 2,
        "peak_rss_bytes": 800_000_000,
        "scenario": {"data": "digits", "clients": 10},
        "margins": {"M3": 0.05},
        "metrics": [
            {"id": "M3", "name": "u-lira", "title": "U-LiRA AUC", "perfect": "0.5", "card": card}
            | shared
            | {"decides": True},
            {"id": "M8", "name": "rmia", "title": "RMIA AUC", "perfect": "retrain's"}
            | {"card": failed}
            | shared,
        ],
        "rows": [
            {
                "strategy": name,
                "kind": "strategy" if name == "fed-eraser" else "control",
                "guarantee": STRATEGIES[name][0],
                "metrics": {
                    "M3": an_estimate(
                        value,
                        calibrated=(value - 0.5) / 0.48,
                        p=0.02,
                        p_holm=0.04,
                        equivalent=name == "retrain",
                    ),
                    "M8": an_estimate(0.51),
                },
                "verdict": {"original": "not forgotten", "retrain": "forgotten"}.get(
                    name, "inconclusive"
                ),
                "why": "M3 lies across its margin",
                "more_seeds": 9 if name == "fed-eraser" else None,
            }
            for name, value in numbers.items()
        ],
        "roc": [
            {"strategy": name, "fpr": [0, 0.1, 1], "tpr": [0, at, 1], "auc": value}
            | {"null_low": 0.45, "null_high": 0.55}
            for (name, value), at in zip(numbers.items(), (0.95, 0.1, 0.2), strict=True)
        ],
    }


def write_audit(folder, **changes):
    (folder / "audit.json").write_text(json.dumps(an_audit() | changes), encoding="utf-8")


def task_measures(seeds=(0, 1, 2)):
    """Return measures of two tasks, one of them forgotten."""
    found = []
    for seed in seeds:
        for name, old in (("original", 0.9), ("fed-eraser", 0.5)):
            shared = {"strategy": name, "seed": seed}
            found += [
                {**shared, "measure": "accuracy", "task": "left", "value": 0.8 + 0.01 * seed},
                {**shared, "measure": "old_head", "task": "parity", "value": old},
                {**shared, "measure": "retained_worst", "value": 0.7}
                | {"task": "left" if seed else "right"},
            ]
    return found


def texts(svg):
    return [node.text for node in ET.fromstring(svg).iter() if node.tag.endswith("}text")]


class Page(HTMLParser):
    """Text, tags and attributes of a page."""

    def __init__(self, html):
        super().__init__()
        self.html, self.words, self.tags, self._open = html, [], [], []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" not in self._open:
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1" viewBox="0 0 1 1"></svg>'
DRAWN = (
    "experiments.reporting.report.timeline",
    "experiments.reporting.cost.trade_off",
    *(f"experiments.reporting.pictures.{name}" for name in ("differences", "attack", "change_map")),
)


def sketch(found, *args, **kwargs):
    """Return a picture at once, where the real one would take a third of a second."""
    return PICTURE if found else None


def maker(tmp_path, monkeypatch):
    """Return a function that writes a run folder and renders its report."""

    def run(
        *,
        strategies=tuple(STRATEGIES),
        seeds=(0, 1, 2),
        details=None,
        ledger=True,
        draw=False,
        **row,
    ):
        if not draw:
            for name in DRAWN:
                monkeypatch.setattr(name, sketch)
        write_run(
            tmp_path, strategies=strategies, seeds=seeds, details=details, ledger=ledger, **row
        )
        return Page(render(tmp_path).read_text(encoding="utf-8"))

    return run
