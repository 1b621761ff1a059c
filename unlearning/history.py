"""``History`` under the name that strategies of one's own import; it lives in ``records``."""

from unlearning.records.history import History

__all__ = ["History"]
