"""Plots that several commands draw."""
