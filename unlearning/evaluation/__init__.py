"""How forgetting is measured: metrics, their controls and their statistics, as pure functions.

One module per theme; every function says definition, unit and source. What a metric is called,
its unit and its perfect value stand in a :class:`~unlearning.evaluation.entry.Metric` beside the
function; :mod:`unlearning.evaluation.catalogue` finds them by walking.

Letters used throughout: K models per side, n examples; phi the logit-scaled confidence, shape
(K, n); the sides are u (unlearned), r (retrained without the forget set) and o (original).
"""
