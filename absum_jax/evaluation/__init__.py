"""Accuracy, clean and under attack, each over a whole set in one compiled program."""
