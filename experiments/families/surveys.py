"""What the surveys of federated unlearning say of the families, each claim a declared test.

The claims are worded by this package; beside each stands the survey or paper that it follows.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.families.claims import (
    ACCURACY,
    MARKER,
    ROUNDING,
    Claim,
    Contrast,
    Declared,
    Part,
)
from experiments.families.kin import members
from experiments.runs.results import FINE_TUNE
from strategies.base import EVERY_MODEL
from strategies.registry import strategies as registered
from unlearning.request import Scope

__all__ = ["CLAIMS"]


def _serves(*scopes: Scope) -> Callable[[str], str]:
    """Return a rule: serving any of these scopes breaks the claim."""

    def breaks(name: str) -> str:
        served = sorted(scope.value for scope in registered()[name].scopes & set(scopes))
        return f"serves {', '.join(served)}" if served else ""

    return breaks


def _serves_none_of(*scopes: Scope) -> Callable[[str], str]:
    """Return a rule: serving none of these scopes breaks the claim."""

    def breaks(name: str) -> str:
        served = registered()[name].scopes
        wanted = " or ".join(scope.value for scope in scopes)
        return "" if served & set(scopes) else f"serves no {wanted}"

    return breaks


def _keeps_history(name: str) -> str:
    kept = sorted(registered()[name].needs & {"globals", "updates", "contributions"})
    return f"needs {', '.join(kept)}" if kept else ""


def _keeps_nothing(name: str) -> str:
    return "" if _keeps_history(name) else "needs no updates or models of past rounds"


def _works_on_networks(name: str) -> str:
    models = registered()[name].models
    if models is None:
        return "works on any network"
    return "works on every model" if models == EVERY_MODEL else ""


_REMOVAL, _CALIBRATION = members("1.2"), ("fed-eraser", "fed-recover", "crab")
_CORRECTION = ("gradient-ascent", "fed-osd", "no-t", "mo-de")
_TRADITIONAL, _DEEP = members("3.1"), members("3.2")
_TASKS = ("task-subtraction", "task-osd", "task-negation", "task-restart")
_NETWORK = (*members("1.2", "2.1", "2.2"), "rapid-retrain", "class-pruning", *_TASKS)

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "retraining is the dearest",
        "Retraining from scratch forgets exactly and costs the most.",
        "the premise of the field; Bourtoule et al., Machine Unlearning, IEEE S&P 2021",
        (
            Part(
                "examples processed by unlearning strategies, as a share of retraining's",
                "share_examples",
                (*_NETWORK, *_TRADITIONAL),
                "below",
                1.0,
            ),
            Part(
                "wall time as a share of retraining's, on networks",
                "share_wall_s",
                _NETWORK,
                "below",
                1.0,
            ),
        ),
        note="That retraining is exact is its definition here, the zero of every gap; not tested.",
    ),
    Claim(
        "rapid retraining",
        "Retraining with second-order steps reaches the same model in less time.",
        "Liu, Xu, Yuan, Wang, Li, The Right to be Forgotten in Federated Learning, INFOCOM 2022",
        (
            Part(
                "examples processed, as a share of retraining's",
                "share_examples",
                ("rapid-retrain",),
                "below",
                1.0,
            ),
            Part(
                "wall time as a share of retraining's",
                "share_wall_s",
                ("rapid-retrain",),
                "below",
                1.0,
            ),
            Part(
                "test accuracy at the end, less retraining's",
                "end_gap",
                ("rapid-retrain",),
                "within",
                ACCURACY,
            ),
        ),
    ),
    Claim(
        "contribution removal is quick",
        "Taking a client's contributions out of the model is faster than every other way.",
        "Wu, Zhu, Mitra, Federated Unlearning with Knowledge Distillation, 2022; Zhang et al., "
        "FedRecovery, IEEE TIFS 2023",
        tuple(
            Part(
                f"wall time of the unlearning over retraining's, less that of {words}",
                "share_unlearn_wall_s",
                _REMOVAL,
                "below",
                0.0,
                theirs=theirs,
                scopes=("client",),
            )
            for words, theirs in (
                ("rapid retraining", ("rapid-retrain",)),
                ("calibration", _CALIBRATION),
                ("gradient correction", _CORRECTION),
            )
        ),
        note="SIFU belongs to this family by what it stores, but retrains from a checkpoint.",
    ),
    Claim(
        "contribution removal hurts accuracy",
        "Without further training the model has lost accuracy; recovery brings it back.",
        "Wu, Zhu, Mitra 2022, which repairs the model by distillation",
        (
            Part(
                "test accuracy lost when the unlearning ends, against the level to reach",
                "loss",
                _REMOVAL,
                "above",
                ACCURACY,
                scopes=("client",),
            ),
            Part(
                "test accuracy still missing after recovery",
                "short",
                _REMOVAL,
                "below",
                ACCURACY,
                scopes=("client",),
            ),
        ),
    ),
    Claim(
        "contribution removal is for clients",
        "What is stored per client can serve neither samples nor classes.",
        "Liu Z. et al., A Survey on Federated Unlearning, ACM CSUR 2024 (granularity)",
        (
            Declared(
                "scopes that the family's strategies serve in this package",
                "neither sample nor class nor task",
                _REMOVAL,
                _serves(Scope.SAMPLE, Scope.CLASS, Scope.TASK),
            ),
        ),
    ),
    Claim(
        "calibration trades storage for time",
        "Calibrating stored updates is faster than retraining at similar accuracy, at the price of "
        "storing every client's updates.",
        "Liu G. et al., FedEraser, IWQoS 2021; Cao et al., FedRecover, IEEE S&P 2023",
        (
            Part(
                "examples processed, as a share of retraining's",
                "share_examples",
                _CALIBRATION,
                "below",
                1.0,
            ),
            Part(
                "wall time as a share of retraining's", "share_wall_s", _CALIBRATION, "below", 1.0
            ),
            Part(
                "test accuracy at the end, less retraining's",
                "end_gap",
                _CALIBRATION,
                "within",
                ACCURACY,
            ),
            Declared(
                "what the server must have kept",
                "globals, updates or contributions of past rounds",
                _CALIBRATION,
                _keeps_nothing,
            ),
        ),
    ),
    Claim(
        "gradient correction needs no history",
        "Correcting gradients needs nothing that training left at the server.",
        "Halimi et al., Federated Unlearning, 2022; Khalil et al., NoT, CVPR 2025",
        (
            Declared(
                "what the server must have kept",
                "no globals, updates or contributions of past rounds",
                _CORRECTION,
                _keeps_history,
            ),
        ),
        note="Gradient ascent needs the leaver's last local model, which the leaver keeps itself.",
    ),
    Claim(
        "gradient correction is quick",
        "It takes less work than retraining and than calibration.",
        "Halimi et al. 2022; Zhao et al., MoDe, IEEE IoT-J 2023; Pan et al., FedOSD, AAAI 2025",
        (
            Part(
                "examples processed, as a share of retraining's",
                "share_examples",
                _CORRECTION,
                "below",
                1.0,
            ),
            Part(
                "examples processed over retraining's, less that of calibration",
                "share_examples",
                _CORRECTION,
                "below",
                0.0,
                theirs=_CALIBRATION,
            ),
        ),
    ),
    Claim(
        "gradient correction damages, recovery repairs",
        "Going up the gradient damages the model; a few rounds without the forgotten repair it.",
        "Halimi et al. 2022; Pan et al., FedOSD, AAAI 2025",
        (
            Part(
                "test accuracy before the request less the lowest after it",
                "drop",
                _CORRECTION,
                "above",
                ACCURACY,
                scopes=("client", "sample"),
            ),
            Part(
                "test accuracy still missing after recovery",
                "short",
                _CORRECTION,
                "below",
                ACCURACY,
            ),
        ),
    ),
    Claim(
        "traditional models forget exactly",
        "Forests, ridge regression, k-means and support vectors forget as if retrained, for less.",
        "Cao, Yang, IEEE S&P 2015; Brophy, Lowd, ICML 2021; Pan et al., ICLR 2023",
        (
            Part(
                "prediction distance to the retrained model",
                "distance",
                ("forest-deletion", "ridge", "k-means", "svm"),
                "below",
                ROUNDING,
            ),
            Part(
                "examples processed, as a share of retraining's",
                "share_examples",
                ("forest-deletion", "ridge", "k-means", "svm"),
                "below",
                1.0,
            ),
        ),
    ),
    Claim(
        "traditional methods are tied to their model",
        "What makes them exact is the model's own structure; none of them works on a network.",
        "Liu Z. et al., ACM CSUR 2024 (model-specific methods)",
        (
            Declared(
                "models that the family's strategies declare",
                "no network",
                _TRADITIONAL,
                _works_on_networks,
            ),
        ),
    ),
    Claim(
        "structure serves classes and tasks",
        "Methods on a deep network's structure serve classes and tasks, not clients.",
        "Wang J. et al., Federated Unlearning via Class-Discriminative Pruning, WWW 2022",
        (
            Declared(
                "scopes that the family's strategies serve in this package",
                "class or task",
                _DEEP,
                _serves_none_of(Scope.CLASS, Scope.TASK),
            ),
            Declared("the same", "not client", _DEEP, _serves(Scope.CLIENT, Scope.SAMPLE)),
        ),
    ),
    Claim(
        "class pruning",
        "Pruning a class's channels forgets it like retraining, for less, and keeps the others.",
        "Wang J. et al., WWW 2022",
        (
            Part(
                "accuracy on the class, less retraining's",
                "forget_gap",
                ("class-pruning",),
                "within",
                ACCURACY,
            ),
            Part(
                "examples processed, as a share of retraining's",
                "share_examples",
                ("class-pruning",),
                "below",
                1.0,
            ),
            Part(
                "test accuracy still missing after recovery",
                "short",
                ("class-pruning",),
                "below",
                ACCURACY,
            ),
        ),
    ),
    Claim(
        "clients that differ make it harder",
        "Where the clients' data are not IID, all strategies do worse.",
        "Liu Z. et al., ACM CSUR 2024 (challenges); Romandini et al., IEEE TNNLS 2024",
        (
            Contrast("average gap to retraining, not IID less IID", "gap", "above", 0.0),
            Contrast("drop of test accuracy, not IID less IID", "drop", "above", 0.0),
            Contrast("test accuracy after recovery, not IID less IID", "end", "below", 0.0),
        ),
    ),
    Claim(
        "unlearning a task disturbs the others",
        "What tasks share is overwritten: forgetting one costs the others (catastrophic "
        "forgetting), and recovery has to bring it back.",
        "Liu B., Liu Q., Stone, Continual Learning and Private Unlearning, CoLLAs 2022",
        (
            Part(
                "test accuracy of the other tasks lost when the unlearning ends",
                "loss",
                _TASKS,
                "above",
                ACCURACY,
                scopes=("task",),
            ),
            Part(
                "test accuracy of the other tasks still missing after recovery",
                "short",
                _TASKS,
                "below",
                ACCURACY,
                scopes=("task",),
            ),
        ),
    ),
    Claim(
        "learning on does not forget",
        "Rounds without the forgotten alone leave its traces in the model.",
        "the control of Halimi et al. 2022 and of FedEraser, IWQoS 2021",
        (
            Part(
                "backdoor success after fine-tuning, less the retrained model's",
                "marker_gap",
                (FINE_TUNE,),
                "above",
                MARKER,
                scopes=("client",),
            ),
        ),
    ),
)
