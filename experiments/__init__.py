"""The experiments of the paper, one command per table and figure.

Run from a clone: `python -m experiments --help`.
"""
