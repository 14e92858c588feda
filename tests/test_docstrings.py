"""Docstrings of functions begin with a verb; those of properties may name the value."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CHECKED = ("absum_jax/**/*.py", "experiments/**/*.py")
PATHS = sorted(path for pattern in CHECKED for path in ROOT.glob(pattern))
# Words that end in "s" and are not verbs.
NOT_VERBS = {
    "accuracies", "always", "arrays", "as", "axes", "batches", "blocks", "classes",
    "fractions", "frequencies", "gradients", "images", "indices", "its", "kernels",
    "labels", "lines", "logits", "losses", "matrices", "models", "norms",
    "numbers", "parameters", "paths", "patterns", "phases", "pixels", "rows", "shapes",
    "shares", "sizes", "steps", "tables", "this", "values", "variables", "weights",
}  # fmt: skip


def _functions(path):
    """Yields the names and docstrings of a file's functions, but for properties."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if "property" in map(ast.unparse, node.decorator_list):
                continue
            yield f"{node.name}:{node.lineno}", ast.get_docstring(node)


@pytest.mark.parametrize("pattern", CHECKED)
def test_there_are_docstrings_to_check(pattern):
    documented = [
        name
        for path in ROOT.glob(pattern)
        for name, docstring in _functions(path)
        if docstring
    ]
    assert documented


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_verb_in_the_third_person(path):
    first = {
        name: docstring.split()[0].rstrip(",")
        for name, docstring in _functions(path)
        if docstring
    }
    assert not {
        name: word
        for name, word in first.items()
        if not (word.isalpha() and word.endswith("s")) or word.lower() in NOT_VERBS
    }
