"""The experiments of the paper, one command per table and figure.

Run from a clone: `python -m experiments --help`. In notebooks, `load_model` loads a
trained model and `find_runs` finds them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.trained import TrainedModel, find_runs, load_model

__all__ = ["TrainedModel", "find_runs", "load_model"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is used: commands set XLA's flags before jax."""
    if name in __all__:
        return getattr(importlib.import_module("experiments.trained"), name)
    raise AttributeError(f"module 'experiments' has no attribute {name!r}")
