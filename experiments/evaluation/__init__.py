"""Attacks on trained runs, with results kept in each run's folder."""
