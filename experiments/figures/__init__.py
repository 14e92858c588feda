"""Draws the figures of the paper, each in one module, and further ones."""
