"""The comparison of the families: plans, measures over many runs, claims, needs, one page."""
