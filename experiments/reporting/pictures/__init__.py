"""The pictures of a report beside its timeline: cost, differences, attack, who gains or loses."""

from experiments.reporting.pictures.cost_gap import Trade, trade_off
from experiments.reporting.pictures.heat import Change, change_map
from experiments.reporting.pictures.paired import Gap, differences
from experiments.reporting.pictures.roc import Curves, attack

__all__ = ["Change", "Curves", "Gap", "Trade", "attack", "change_map", "differences", "trade_off"]
