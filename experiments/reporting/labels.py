"""How tables and figures denote a model."""

from experiments.config import NONE, RunConfig, Setting
from experiments.methods import METHODS


def setting_label(setting: Setting) -> str:
    """Returns a method and its strength, for a picture."""
    method = METHODS[setting.method]
    if method.strength is None:
        return method.label
    return rf"{method.label}, ${method.strength.symbol}={setting.strength:g}$"


def model_cells(config: RunConfig) -> tuple[str, str, str]:
    """Returns the method, its strength and the seed, for a table."""
    strength = "" if config.setting == NONE else f"{config.strength:g}"
    return METHODS[config.method].label, strength, str(config.seed)
