"""The numbers that the paper publishes, as data."""

from experiments.paper.table1 import TABLE1, Published

__all__ = ["TABLE1", "Published"]
