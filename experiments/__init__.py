"""The experiments of the paper, one command per table and figure.

Run from a clone: `python -m experiments --help`. In notebooks, `find_runs` finds
trained models and `load_model` loads one; `load_pytorch` and `save_pytorch` exchange
weights with PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.models.pytorch_files import load_pytorch, save_pytorch
    from experiments.trained import TrainedModel, find_runs, load_model

__all__ = ["TrainedModel", "find_runs", "load_model", "load_pytorch", "save_pytorch"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is used: commands set XLA's flags before jax."""
    if name not in __all__:
        raise AttributeError(f"module 'experiments' has no attribute {name!r}")
    module = "models.pytorch_files" if name.endswith("pytorch") else "trained"
    return getattr(importlib.import_module(f"experiments.{module}"), name)


def __dir__() -> list[str]:
    """Lists the public names too, which notebooks complete."""
    return [*globals(), *__all__]
