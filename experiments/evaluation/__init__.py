"""Attacks on trained models, with values stored in each run's folder.

`attack.Attack` is what each defines, and `evaluator.run` evaluates any of them.
"""
