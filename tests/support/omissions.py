"""What a client may have been asked to forget, drawn at random."""

from hypothesis import strategies as st

from unlearning.request import Omission

__all__ = ["IDS", "NAMES", "OMISSIONS", "SETS"]

IDS = st.integers(0, 9)
SETS = st.frozensets(IDS, max_size=4)
NAMES = st.frozensets(st.text(max_size=4), max_size=2)
OMISSIONS = st.builds(Omission, st.booleans(), SETS, SETS, NAMES, SETS)
