"""Four images, a linear model of three classes, and calls with valid arguments."""

import jax
import numpy as np
from jax.tree_util import Partial

import absum_jax

KERNEL = np.ones((3, 3, 1, 2), np.float32)
PARAMS = {"conv": {"kernel": KERNEL}}
X = np.full((4, 4, 6, 1), 0.5, np.float32)
Y = np.array([0, 1, 2, 0])
MODEL = Partial(
    lambda weights, x: x.reshape(len(x), -1) @ weights,
    np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32),
)
KEY = jax.random.key(0)
PGD = {"key": KEY, "eps": 0.1, "step_size": 0.1, "steps": 1}


def accuracy(**changes):
    """Calls `absum_jax.accuracy` with changed arguments."""
    return absum_jax.accuracy(**{"logits_fn": MODEL, "x": X, "y": Y} | changes)


def pgd(**changes):
    """Calls `absum_jax.pgd` with changed arguments."""
    return absum_jax.pgd(**{"logits_fn": MODEL, "x": X, "y": Y} | PGD | changes)
