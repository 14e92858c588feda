"""Attacks on trained models, with values stored in each run's folder.

`attack.Attack` is what each attack defines, and `evaluator.run` evaluates any of them.
Each module here registers its attacks when it is imported, as all are with the package.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
