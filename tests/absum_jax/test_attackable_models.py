"""Models that cannot be attacked as they are: not of JAX, or without a gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from four_images import MODEL, PGD, X, Y, accuracy, pgd

import absum_jax

pytestmark = pytest.mark.slow


def numpy_model(x):
    return np.asarray(x).reshape(len(x), -1)[:, :3]


def torch_like(x):
    return x.permute(0, 3, 1, 2)


class OnlyTensors:
    """Refuses all but its own kind, as functions of PyTorch do."""

    def __call__(self, x):
        raise TypeError(f"conv2d(): input must be Tensor, not {type(x).__name__}")


class NoTensor(OnlyTensors):
    """Fails as TensorFlow does, or PyTorch in another place."""

    def __init__(self, error):
        self.error = error

    def __call__(self, x):
        raise self.error(f"Could not infer the dtype of {type(x).__name__}")


def concrete(x):
    return MODEL(x) * float(x.sum())


def selected(x):
    return MODEL(x[x.sum((1, 2, 3)) > 0])


OTHERS = [numpy_model, torch_like, OnlyTensors(), concrete, selected]
OTHERS += [NoTensor(ValueError), NoTensor(RuntimeError)]


@pytest.mark.parametrize("model", OTHERS)
@pytest.mark.parametrize("function", [accuracy, pgd])
def test_models_that_are_not_of_jax(function, model):
    message = r"^`logits_fn` must be traceable by jax.*`jax.pure_callback`"
    with pytest.raises(ValueError, match=message):
        function(logits_fn=model)


def test_a_model_of_numpy_in_a_callback():
    def model(x):
        shape = jax.ShapeDtypeStruct((len(x), 3), x.dtype)
        return jax.pure_callback(numpy_model, shape, x)

    assert accuracy(logits_fn=model, y=np.zeros(4, int)) == 1


def test_errors_of_the_model_itself_pass():
    def wrong(x):
        raise TypeError("unsupported operand")

    with pytest.raises(TypeError, match="unsupported operand"):
        accuracy(logits_fn=wrong)


def probabilities(x):
    return jax.nn.softmax(MODEL(x))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_rounded_probabilities_are_no_logits(dtype):
    def shares(x):
        return jax.nn.softmax(MODEL(x).astype(dtype))

    sums = shares(X).astype(float).sum(-1)
    assert np.abs(sums - 1).max() > (1e-3 if dtype == jnp.bfloat16 else 0)
    for name in FOOLED:
        with pytest.raises(ValueError, match=r"^`logits_fn` must return logits, got"):
            FOOLED[name](logits_fn=shares)


def rounded(x):
    return jnp.round(MODEL(x), 1)


def stopped(x):
    return jax.lax.stop_gradient(MODEL(x))


FOOLED = {
    "fgsm": lambda **models: absum_jax.fgsm(x=X, y=Y, eps=0.1, **models),
    "pgd": lambda **models: absum_jax.pgd(x=X, y=Y, **PGD, **models),
    "pgd of a list": lambda **models: absum_jax.pgd(
        x=X, y=Y, **PGD | {"eps": [0.0, 0.1]}, **models
    ),
    "pgd_accuracy": lambda **models: absum_jax.pgd_accuracy(
        x=X, y=Y, **PGD | {"eps": [0.0, 0.1]}, batch_size=3, **models
    ),
}
TRANSFERRED = functools.partial(FOOLED["pgd_accuracy"], logits_fn=MODEL)


@pytest.mark.parametrize("name", FOOLED)
def test_probabilities_are_no_logits(name):
    message = "must return logits, got probabilities"
    with pytest.raises(ValueError, match=f"^`logits_fn` {message}"):
        FOOLED[name](logits_fn=probabilities)
    with pytest.raises(ValueError, match=f"^`substitute` {message}"):
        TRANSFERRED(substitute=probabilities)


def test_a_loss_may_be_of_probabilities():
    def loss(shares, y):
        return -jnp.log(jnp.take_along_axis(shares, y[:, None], -1)[:, 0])

    options = {"init_radius": 0.0, "eps": 0.2, "step_size": 0.1, "steps": 2}
    attacked = pgd(logits_fn=probabilities, loss=loss, **options)
    np.testing.assert_array_equal(attacked, pgd(**options))


def undefined(x):
    """Returns the logits, with a gradient of NaN alone: the root of zero has none."""
    return MODEL(x) + jnp.sqrt(x - x)[:, 0, 0]


@pytest.mark.parametrize("model", [rounded, stopped, undefined])
@pytest.mark.parametrize("name", FOOLED)
def test_models_without_a_gradient(name, model):
    right = np.asarray(MODEL(X).argmax(-1))
    message = r"^`logits_fn` had no gradient at \d of 4"
    with pytest.warns(UserWarning, match=message) as warned:
        FOOLED[name](logits_fn=model)
    # The line that called the library.
    assert warned[0].filename == __file__
    with pytest.warns(UserWarning, match=r"^`substitute` had no gradient at \d of 4"):
        TRANSFERRED(substitute=model)
    # Wrong answers need no attack.
    wrong = (right + 1) % 3
    absum_jax.pgd_accuracy(model, X, wrong, **PGD | {"eps": 1e-6}, early_stop=True)
