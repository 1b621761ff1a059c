"""Measurements that nothing imports: each is run by ``python -m experiments.benchmarks.NAME``."""
