"""How fast the project is, in ratios: ``python -m experiments.benchmarks.speed PART``.

A part is one function in one file of ``parts/``, both named as it is. It returns a
:class:`~experiments.benchmarks.speed.clock.Found`; nothing else is touched.
"""
