"""Unlearning strategies: Flower strategies that make a federation forget, one algorithm per file.

They are found by walking this package; nothing is registered by hand.
"""
