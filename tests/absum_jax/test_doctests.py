"""The examples in the docstrings."""

import doctest
import importlib
import pkgutil

import matplotlib.pyplot as plt
import pytest

import absum_jax

pytestmark = pytest.mark.slow

MODULES = [
    "absum_jax",
    *(
        module.name
        for module in pkgutil.walk_packages(absum_jax.__path__, "absum_jax.")
    ),
]
# Modules without a public function of their own.
WITHOUT_EXAMPLES = {
    "absum_jax",
    "absum_jax._jaxprs",
    "absum_jax._logits",
    "absum_jax._sharding",
    "absum_jax._validation",
    "absum_jax.attacks",
    "absum_jax.attacks._descent",
    "absum_jax.evaluation",
    "absum_jax.spectral",
    "absum_jax.spectral.circulant",
    "absum_jax.spectral.decomposition",
    "absum_jax.spectral.hermitian",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    plt.close("all")
    assert failed == 0
    assert (attempted > 0) == (name not in WITHOUT_EXAMPLES)
