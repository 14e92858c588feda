"""Accuracy, clean and under attack: one compiled program evaluates a whole set."""
