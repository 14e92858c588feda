"""The operators in docs/jaxopt.md minimize what JAXopt's documentation says they do."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import absum_jax

PAGE = (pathlib.Path(__file__).parents[1] / "docs/jaxopt.md").read_text()
X = np.linspace(-2.0, 2.0, 9)
T, GAMMA = 0.3, 0.7

# JAXopt's penalties, of one number, and their domains.
PENALTIES = {
    "prox_lasso": (abs, (-9, 9)),
    "prox_non_negative_lasso": (abs, (0, 9)),
    "prox_ridge": (np.square, (-9, 9)),
    "prox_non_negative_ridge": (np.square, (0, 9)),
    "prox_elastic_net": (lambda y: abs(y) + GAMMA / 2 * y**2, (-9, 9)),
}


def operator(name):
    """Returns the operator in the table's row of a JAXopt function."""
    [code] = re.findall(rf"^\| `{name}\(.*\| `(.*)` \|$", PAGE, re.M)
    return eval(code, {"absum_jax": absum_jax, "jnp": jnp, "gamma": GAMMA})


@pytest.mark.parametrize("name", PENALTIES)
def test_operators_of_numbers(name):
    penalty, bounds = PENALTIES[name]
    expected = [
        scipy.optimize.minimize_scalar(
            lambda y, x=x: 0.5 * (x - y) ** 2 + T * penalty(y),
            bounds=bounds, method="bounded", options={"xatol": 1e-9},
        ).x
        for x in X
    ]  # fmt: skip
    np.testing.assert_allclose(operator(name)(X, T), expected, atol=1e-4)


def test_group_lasso():
    [block] = [b for b in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "vmap" in b]
    names = {"jax": jax, "jnp": jnp}
    exec(block.partition("\n\n\ntx")[0], names)
    for x in np.random.default_rng(0).normal(size=(4, 5)):
        found = np.asarray(names["group_lasso"](x, 1.5))
        best = scipy.optimize.minimize(
            lambda y, x=x: 0.5 * ((x - y) ** 2).sum() + 1.5 * np.linalg.norm(y),
            x, method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-10, "maxfev": 9999},
        )  # fmt: skip
        np.testing.assert_allclose(found, best.x, atol=1e-3)
    np.testing.assert_array_equal(names["group_lasso"](jnp.zeros(3), 1.0), 0)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 2, 4)).astype(np.float32)
    each = [names["group_lasso"](kernel[..., i], 2.0) for i in range(4)]
    np.testing.assert_allclose(
        names["of_filters"](kernel, 2.0), np.stack(each, axis=-1), rtol=1e-6
    )
