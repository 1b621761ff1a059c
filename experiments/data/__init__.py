"""Data sets, how they are shared out among clients, and what is planted in them."""

from experiments.data.dataset import Dataset

__all__ = ["Dataset"]
