"""Means, intervals, tests and verdicts over seeds (results/CRITERIA.md)."""
