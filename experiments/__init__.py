"""Composition: the only place that knows data, models, clients, strategies and their settings.

Import from the modules themselves, for example ``from experiments.config.loading import load``.
"""
