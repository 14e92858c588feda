"""Attacks on trained models, with values stored in each run's folder.

Each attack is an `attack.Attack`, and `evaluator.run` evaluates any of them. Importing
this package imports all of its modules, which register their attacks.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
