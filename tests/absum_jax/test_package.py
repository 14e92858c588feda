"""What the package promises as a whole."""

import ast
import importlib.metadata
import inspect
import pathlib
import subprocess
import sys

import jax
import pytest

import absum_jax

PACKAGE = pathlib.Path(absum_jax.__file__).parent


@pytest.mark.parametrize("name", absum_jax.__all__)
def test_every_public_name_is_documented(name):
    public = getattr(absum_jax, name)
    assert public.__doc__
    if inspect.isfunction(public):
        assert "\nArgs:\n" in inspect.getdoc(public)
        assert "\nReturns:\n" in inspect.getdoc(public)
        assert "\nExample:\n  >>> " in inspect.getdoc(public)


def test_all_is_sorted_and_complete():
    assert list(absum_jax.__all__) == sorted(set(absum_jax.__all__))
    public = {
        name
        for name, value in vars(absum_jax).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(absum_jax.__all__)


def test_import_needs_no_optional_package_and_starts_no_backend():
    program = """
import sys
for optional in ("matplotlib", "flax", "haiku", "equinox", "experiments"):
    sys.modules[optional] = None  # importing it is an ImportError
import absum_jax
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module


def test_imports_are_the_declared_dependencies():
    roots = {
        name.split(".")[0] for path in PACKAGE.rglob("*.py") for name in imported(path)
    }
    # numpy comes with jax; matplotlib is the extra `plot`.
    declared = {"absum_jax", "jax", "optax", "chex", "numpy", "matplotlib"}
    assert roots - set(sys.stdlib_module_names) == declared


def test_nothing_private_or_experimental_of_jax_is_imported():
    names = {name for path in PACKAGE.rglob("*.py") for name in imported(path)}
    assert not [name for name in names if "_src" in name or "experimental" in name]


def test_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_version_is_the_distribution_s():
    assert importlib.metadata.version("absum-jax") == absum_jax.__version__


def test_results_are_pytrees():
    result = absum_jax.SingleFourierAccuracy(*range(5))
    assert jax.tree.leaves(result) == list(range(5))
    assert absum_jax.ProximalState(count=3)._asdict() == {"count": 3}
