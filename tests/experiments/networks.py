"""Networks with random values, and images, for their tests."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from absum_jax.kernels import leaf_name
from experiments.models.architectures import without_values


def filled(create, seed=0, gain=1.0, **options):
    """A network with random parameters and statistics, all of them unlike 0 and 1.

    A gain of 2 is He's, at which images still differ behind many layers without a
    shortcut. Filled by NumPy: to compile a sampler for each shape takes longer than the
    tests.
    """
    graphdef, state = nnx.split(without_values(create, **options))
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        if leaf.ndim > 1:
            scale = (gain / np.prod(leaf.shape[:-1])) ** 0.5
            values = rng.normal(size=leaf.shape) * scale
        elif leaf_name(path).endswith(("scale", "var")):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            values = rng.normal(size=leaf.shape) * 0.2
        return jnp.asarray(values, jnp.float32)

    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(fill, state))


def evaluated(model):
    return nnx.view(model, use_running_average=True)


def images(examples, size=32, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.random((examples, size, size, 3), np.float32))


def norms(model):
    """The batch normalizations, in an order that is always the same."""
    modules = (module for _, module in nnx.iter_modules(model))
    return [module for module in modules if isinstance(module, nnx.BatchNorm)]
