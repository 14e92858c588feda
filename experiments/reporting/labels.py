"""How figures denote a model."""

from experiments.config import Setting
from experiments.methods import METHODS


def setting_label(setting: Setting) -> str:
    """Returns a method and its strength, for a picture."""
    method = METHODS[setting.method]
    if method.strength is None:
        return method.label
    return rf"{method.label}, ${method.strength.symbol}={setting.strength:g}$"
