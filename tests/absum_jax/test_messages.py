"""Wrong input of every public function: a ValueError that names it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import absum_jax

KERNEL = np.ones((3, 3, 1, 2), np.float32)
PARAMS = {"conv": {"kernel": KERNEL}}
X = np.full((4, 4, 6, 1), 0.5, np.float32)
Y = np.array([0, 1, 2, 0])
MODEL = Partial(
    lambda weights, x: x.reshape(len(x), -1) @ weights, np.ones((24, 3), np.float32)
)
KEY = jax.random.key(0)
call = functools.partial
NAN = float("nan")

NUMBERS = [
    (-0.5, "must be non-negative, got -0.5"),
    (NAN, "must be non-negative, got nan"),
    (np.float32(-1), "must be non-negative, got .*-1"),
    (jnp.bfloat16(-1), "must be non-negative, got .*-1"),
    (1j, "must be a real number, got 1j"),
    (None, "must be a real number, got None"),
    ("0.1", "must be a real number, got '0.1'"),
    (True, "must be a real number, got True"),
    ([0.1, 0.2], r"must be a real number, got \[0.1, 0.2\]"),
    (np.ones(2), r"must be a scalar, got shape \(2,\)"),
]
TAKES_NUMBER = {
    "prox_absum threshold": lambda n: absum_jax.prox_absum(KERNEL, n),
    "prox_l1 threshold": lambda n: absum_jax.prox_l1(KERNEL, n),
    "apply_proximal_updates threshold": lambda n: absum_jax.apply_proximal_updates(
        PARAMS, PARAMS, absum_jax.prox_l1, n
    ),
    "absum strength": lambda n: absum_jax.absum(n, learning_rate=0.1),
    "absum learning_rate": lambda n: absum_jax.absum(0.1, learning_rate=n),
    "l1 strength": lambda n: absum_jax.l1(n, learning_rate=0.1),
    "l1 learning_rate": lambda n: absum_jax.l1(0.1, learning_rate=n),
    "proximal strength": lambda n: absum_jax.proximal(
        absum_jax.prox_l1, n, learning_rate=0.1
    ),
    "proximal learning_rate": lambda n: absum_jax.proximal(
        absum_jax.prox_l1, 0.1, learning_rate=n
    ),
    "single_fourier_perturbation eps": lambda n: absum_jax.single_fourier_perturbation(
        0, 1, (4, 6), n
    ),
    "single_fourier_attack eps": lambda n: absum_jax.single_fourier_attack(X, 0, 1, n),
    "single_fourier_accuracy eps": lambda n: absum_jax.single_fourier_accuracy(
        MODEL, X, Y, n
    ),
    "fourier_noise_accuracy norm": lambda n: absum_jax.fourier_noise_accuracy(
        MODEL, X, Y, n, key=KEY
    ),
    "low_pass radius": lambda n: absum_jax.low_pass(X, n),
    "high_pass radius": lambda n: absum_jax.high_pass(X, n),
}


@pytest.mark.parametrize(("value", "message"), NUMBERS)
@pytest.mark.parametrize("where", TAKES_NUMBER)
def test_non_negative_scalars(where, value, message):
    argument = where.split()[-1]
    with pytest.raises(ValueError, match=f"^`{argument}` {message}"):
        TAKES_NUMBER[where](value)


KERNELS = [
    (np.ones((3, 2)), "`kernel` of shape (3, 2) has no spatial axes: at least three"),
    (np.ones(3), "`kernel` of shape (3,) has no spatial axes"),
    (np.ones((3, 3, 1, 2), int), "`kernel` must have a real floating-point dtype, got"),
    (np.ones((3, 3, 1, 2), complex), "`kernel` must have a real floating-point dtype"),
]


@pytest.mark.parametrize(("kernel", "message"), KERNELS)
@pytest.mark.parametrize(
    "function",
    [
        lambda kernel: absum_jax.prox_absum(kernel, 0.1),
        absum_jax.absum_penalty,
        lambda kernel: absum_jax.absum(
            0.1, learning_rate=0.1, mask=lambda tree: jax.tree.map(lambda _: True, tree)
        ).init({"layer": kernel}),
    ],
    ids=["prox_absum", "absum_penalty", "absum"],
)
def test_kernels(function, kernel, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        function(kernel)


def test_absum_says_which_leaf_has_no_spatial_axes():
    tx = absum_jax.absum(0.1, learning_rate=0.1, mask={"head": {"kernel": True}})
    with pytest.raises(ValueError, match=r"no spatial axes.*\['head'\]\['kernel'\]"):
        tx.init({"head": {"kernel": np.ones((3, 2))}})


@pytest.mark.parametrize("dtype", [int, complex])
def test_prox_l1_refuses_other_dtypes(dtype):
    with pytest.raises(ValueError, match=r"^`kernel` must have a real floating-point"):
        absum_jax.prox_l1(np.ones(3, dtype), 0.1)


@pytest.mark.parametrize(
    "axes", [(0, 4), (-5, 1), (1, 1), (0, -4), (), 2, (0.0, 1.0), ("h", "w")]
)
@pytest.mark.parametrize(
    "function",
    [
        lambda axes: absum_jax.prox_absum(KERNEL, 0.1, spatial_axes=axes),
        lambda axes: absum_jax.absum_penalty(KERNEL, spatial_axes=axes),
        lambda axes: absum_jax.absum(0.1, learning_rate=0.1, spatial_axes=axes).init(
            PARAMS
        ),
    ],
    ids=["prox_absum", "absum_penalty", "absum"],
)
def test_spatial_axes(function, axes):
    expected = "`spatial_axes` must be distinct axes of a kernel of shape (3, 3, 1, 2)"
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        function(axes)
    assert repr(axes) in str(error.value)


NO_CONVOLUTION = {"dense": {"kernel": np.ones((3, 2), np.float32)}}


@pytest.mark.parametrize(
    "function",
    [
        lambda: absum_jax.absum(0.1, learning_rate=0.1).init(NO_CONVOLUTION),
        lambda: absum_jax.l1(0.1, learning_rate=0.1).init(NO_CONVOLUTION),
        lambda: absum_jax.l1(0.1, learning_rate=0.1, mask={"dense": False}).init(
            NO_CONVOLUTION
        ),
        lambda: absum_jax.proximal(
            absum_jax.prox_l1, 0.1, learning_rate=0.1, mask=absum_jax.conv_kernels
        ).init(NO_CONVOLUTION),
        lambda: absum_jax.apply_proximal_updates(
            NO_CONVOLUTION, NO_CONVOLUTION, absum_jax.prox_l1, 0.1
        ),
        lambda: optax.chain(
            optax.sgd(0.1), absum_jax.absum(0.1, learning_rate=0.1)
        ).init({}),
    ],
    ids=["absum", "l1", "l1 mask", "proximal", "apply_proximal_updates", "empty"],
)
def test_no_convolution_kernel(function):
    with pytest.raises(ValueError, match=r"`mask` selects no leaf.*pass a mask"):
        function()


PGD = {"key": KEY, "eps": 0.1, "step_size": 0.1, "steps": 1}
EVALUATIONS = {
    "accuracy": absum_jax.accuracy,
    "single_fourier_accuracy": call(absum_jax.single_fourier_accuracy, eps=0.1),
    "fourier_noise_accuracy": call(absum_jax.fourier_noise_accuracy, norm=0.1, key=KEY),
    "low_pass_accuracy": call(absum_jax.low_pass_accuracy, radius=1),
    "high_pass_accuracy": call(absum_jax.high_pass_accuracy, radius=[0, 1]),
    "pgd_accuracy": call(absum_jax.pgd_accuracy, **PGD),
}
GRADIENT_ATTACKS = {
    "fgsm": call(absum_jax.fgsm, eps=0.1),
    "pgd": call(absum_jax.pgd, **PGD),
}


def constant_logits(*shape):
    return lambda x: jnp.zeros(shape)


EVALUATION_INPUT = [
    ({"y": Y[:3]}, "`y` must hold one label for each of the 4 images in `x`.*(3,)"),
    ({"y": np.eye(4, dtype=int)}, "`y` must hold one label for each.*(4, 4)"),
    ({"y": Y.astype(float)}, "`y` must be integer class labels, got dtype float32"),
    ({"y": Y == 0}, "`y` must be integer class labels, got dtype bool"),
    ({"y": Y + 1}, "`y` must lie in 0..2, as `logits_fn` returns 3.*from 1 to 3"),
    ({"y": Y - 1}, "`y` must lie in 0..2.*from -1 to 1"),
    ({"x": (X * 255).astype(np.uint8)}, "`x` must be floating-point.*uint8.*by 255"),
    ({"x": X[0]}, "`x` must have the axes (batch, height, width, channels).*(4, 6, 1)"),
    ({"x": X[None]}, "`x` must have the axes (batch,.*(1, 4, 4, 6, 1)"),
    ({"x": X[:0], "y": Y[:0]}, "`x` and `y` must hold at least one image"),
    ({"batch_size": 0}, "`batch_size` must be an integer of at least 1, got 0"),
    ({"batch_size": -1}, "`batch_size` must be an integer of at least 1, got -1"),
    ({"batch_size": 2.0}, "`batch_size` must be an integer of at least 1, got 2.0"),
    ({"batch_size": True}, "`batch_size` must be an integer of at least 1, got True"),
    ({"batch_size": None}, "`batch_size` must be an integer of at least 1, got None"),
    ({"top_k": 0}, "`top_k` must be an integer of at least 1, got 0"),
    ({"top_k": 1.0}, "`top_k` must be an integer of at least 1, got 1.0"),
    ({"top_k": 4}, "`top_k` must be at most the number of classes, 3, got 4"),
    ({"top_k": ()}, "`top_k` must hold at least one integer, got ()"),
    ({"top_k": (1, 0)}, "`top_k` must be an integer of at least 1, got 0"),
    ({"top_k": [1, 2]}, "`top_k` must be an integer of at least 1, got [1, 2]"),
    ({"top_k": (4, 1)}, "`top_k` must be at most the number of classes, 3, got (4, 1)"),
    ({"logits_fn": np.ones(3)}, "`logits_fn` must be a callable.*got ndarray"),
    ({"logits_fn": None}, "`logits_fn` must be a callable.*got NoneType"),
    (
        {"logits_fn": constant_logits(4)},
        "`logits_fn` must return logits of shape (4, classes) for images of shape "
        "(4, 4, 6, 1), got .*(4,)",
    ),
    (
        {"logits_fn": constant_logits(5, 3)},
        "`logits_fn` must return logits of shape (4, classes).*(5, 3)",
    ),
    (
        {"logits_fn": lambda x: (jnp.zeros((4, 3)), None)},
        "`logits_fn` must return logits of shape (4, classes)",
    ),
]


def as_pattern(message):
    return "^" + ".*".join(re.escape(part) for part in message.split(".*"))


@pytest.mark.parametrize("name", EVALUATIONS)
@pytest.mark.parametrize(("changed", "message"), EVALUATION_INPUT)
def test_evaluation(name, changed, message):
    arguments = {"logits_fn": MODEL, "x": X, "y": Y} | changed
    with pytest.raises(ValueError, match=as_pattern(message)):
        EVALUATIONS[name](**arguments)


ATTACK_INPUT = [
    pair for pair in EVALUATION_INPUT if not pair[0].keys() & {"batch_size", "top_k"}
]


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
@pytest.mark.parametrize(("changed", "message"), ATTACK_INPUT)
def test_gradient_attack(name, changed, message):
    arguments = {"logits_fn": MODEL, "x": X, "y": Y} | changed
    with pytest.raises(ValueError, match=as_pattern(message)):
        GRADIENT_ATTACKS[name](**arguments)


TAKES_IMAGES = {
    "single_fourier_attack": lambda x, **options: absum_jax.single_fourier_attack(
        x, 0, 1, 0.1, **options
    ),
    "single_fourier_accuracy": lambda x, **options: absum_jax.single_fourier_accuracy(
        MODEL, x, Y, 0.1, **options
    ),
    "fourier_noise_accuracy": lambda x, **options: absum_jax.fourier_noise_accuracy(
        MODEL, x, Y, 0.1, key=KEY, **options
    ),
    "fgsm": lambda x, **options: absum_jax.fgsm(MODEL, x, Y, eps=0.1, **options),
    "pgd": lambda x, **options: absum_jax.pgd(MODEL, x, Y, **PGD, **options),
    "pgd_accuracy": lambda x, **options: absum_jax.pgd_accuracy(
        MODEL, x, Y, **PGD, **options
    ),
}


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X * 255, {}, "`x` must lie within bounds=(0.0, 1.0), got values from 127.5"),
        (X - 0.5 - 2e-6, {}, "`x` must lie within bounds=(0.0, 1.0), got values"),
        (X + 0.5 + 2e-6, {}, "`x` must lie within bounds=(0.0, 1.0), got values"),
        (X * np.nan, {}, "`x` must lie within bounds=(0.0, 1.0), got values from nan"),
        (X, {"bounds": (-1, 0.4)}, "`x` must lie within bounds=(-1, 0.4), got values"),
        ((X * 255).astype(int), {}, "`x` must be floating-point images, got dtype int"),
        (X, {"bounds": (1.0, 0.0)}, "`bounds` must satisfy low < high, got (1.0, 0.0)"),
        (X, {"bounds": (0.5, 0.5)}, "`bounds` must satisfy low < high, got (0.5, 0.5)"),
        (X, {"bounds": (0, NAN)}, "`bounds` must satisfy low < high, got (0, nan)"),
        (X, {"bounds": 1.0}, "`bounds` must be a pair (low, high), got 1.0"),
        (X, {"bounds": (0, 1, 2)}, "`bounds` must be a pair (low, high), got (0, 1, 2"),
        (X, {"bounds": None}, "`bounds` must be a pair (low, high), got None"),
    ],
)
@pytest.mark.parametrize("name", TAKES_IMAGES)
def test_attacked_images(name, x, options, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        TAKES_IMAGES[name](x, **options)


@pytest.mark.parametrize("name", ["single_fourier_attack", "single_fourier_accuracy"])
def test_scale_of_an_attack(name):
    message = "`scale` must be one of 'linf', 'l2', 'coefficient', got 'l1'"
    with pytest.raises(ValueError, match=as_pattern(message)):
        TAKES_IMAGES[name](X, scale="l1")


@pytest.mark.parametrize("offset", [-1e-7, 1e-7])
@pytest.mark.parametrize("name", TAKES_IMAGES)
def test_rounding_beyond_the_bounds_is_accepted(name, offset):
    x = np.full_like(X, offset if offset < 0 else 1 + 1.2e-7)
    assert x.min() < 0 or x.max() > 1
    TAKES_IMAGES[name](x)


def test_clean_accuracy_does_not_look_at_the_range():
    assert absum_jax.accuracy(MODEL, X * 255, np.zeros(4, int)) == 1.0


@pytest.mark.parametrize("shape", [(4, 6), (6,), ()])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: absum_jax.single_fourier_attack(x, 0, 0, 0.1),
        lambda x: absum_jax.low_pass(x, 1),
        lambda x: absum_jax.high_pass(x, 1),
    ],
    ids=["single_fourier_attack", "low_pass", "high_pass"],
)
def test_attack_needs_image_axes(function, shape):
    with pytest.raises(ValueError, match=r"`x` must have the axes \(\.\.\., height"):
        function(np.zeros(shape, np.float32))


@pytest.mark.parametrize("function", [absum_jax.low_pass, absum_jax.high_pass])
@pytest.mark.parametrize("dtype", [np.uint8, complex, bool])
def test_filters_take_floating_point_images(function, dtype):
    with pytest.raises(ValueError, match=r"^`x` must be floating-point images, got"):
        function(X.astype(dtype), 1)


@pytest.mark.parametrize(
    ("perturbation", "message"),
    [
        (X[0], "`perturbation` must have the axes (batch, height,.*(4, 6, 1)"),
        (X[None], "`perturbation` must have the axes (batch,.*(1, 4, 4, 6, 1)"),
        (X.astype(int), "`perturbation` must be floating-point.*int"),
        (X[:0], "`perturbation` must hold at least one image"),
    ],
)
def test_power_spectrum(perturbation, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.power_spectrum(perturbation)


@pytest.mark.parametrize("bounds", [(1.0, 0.0), 1.0, (0, NAN), ("a", "b")], ids=str)
@pytest.mark.parametrize(
    "function", [absum_jax.low_pass_accuracy, absum_jax.high_pass_accuracy]
)
def test_bounds_of_filtered_images(function, bounds):
    with pytest.raises(ValueError, match=r"^`bounds` must"):
        function(MODEL, X, Y, 1, bounds=bounds)


LISTS = [
    (-0.5, "must be non-negative, got -0.5"),
    (NAN, "must be non-negative, got nan"),
    (np.float32(-1), "must be non-negative, got .*-1"),
    (1j, "must be a real number, got 1j"),
    ("0.1", "must be a real number, got '0.1'"),
    (True, "must be a real number, got True"),
    ([], r"must be a scalar or a list of at least one, got shape \(0,\)"),
    (jnp.ones(0), r"must be a scalar or a list of at least one, got shape \(0,\)"),
    ([[0.1, 0.2]], r"must be a scalar or a list of at least one, .* \(1, 2\)"),
    (np.ones((2, 0)), r"must be a scalar or a list of at least one, .* \(2, 0\)"),
    ([[0.1], [0.1, 0.2]], "must be a scalar or a list"),
    ([0.1, -0.1], "must be non-negative, got .*-0.1"),
    ((0.1, NAN), "must be non-negative, got .*nan"),
    (np.array([-1, 1]), "must be non-negative, got .*-1"),
    (jnp.array([0.5, -0.5]), "must be non-negative, got .*-0.5"),
    ([None, 0.1], "must be a real number, got None"),
    (["a"], "must be a real number, got .*'a'"),
    ([True, False], "must be a real number, got .*True"),
    (np.ones(2, complex), "must be a real number, got .*1"),
    (lambda step: 0.1, "must be a real number, got <function"),
]
TAKES_LIST = {
    "fgsm eps": lambda n: absum_jax.fgsm(MODEL, X, Y, eps=n),
    "pgd eps": lambda n: absum_jax.pgd(MODEL, X, Y, **PGD | {"eps": n}),
    "pgd step_size": lambda n: absum_jax.pgd(MODEL, X, Y, **PGD | {"step_size": n}),
    "pgd init_radius": lambda n: absum_jax.pgd(MODEL, X, Y, **PGD, init_radius=n),
    "pgd_accuracy eps": lambda n: absum_jax.pgd_accuracy(
        MODEL, X, Y, **PGD | {"eps": n}
    ),
    "low_pass_accuracy radius": lambda n: absum_jax.low_pass_accuracy(MODEL, X, Y, n),
    "high_pass_accuracy radius": lambda n: absum_jax.high_pass_accuracy(MODEL, X, Y, n),
}


@pytest.mark.parametrize(("value", "message"), LISTS)
@pytest.mark.parametrize("where", TAKES_LIST)
def test_non_negative_lists(where, value, message):
    argument = where.split()[-1]
    with pytest.raises(ValueError, match=f"^`{argument}` {message}"):
        TAKES_LIST[where](value)


@pytest.mark.parametrize("function", [absum_jax.pgd, absum_jax.pgd_accuracy])
@pytest.mark.parametrize("argument", ["step_size", "init_radius"])
@pytest.mark.parametrize(
    ("eps", "value", "message"),
    [
        (0.1, [0.1], "as many as `eps`, of shape (), got shape (1,)"),
        ([0.1, 0.2], [0.1], "as many as `eps`, of shape (2,), got shape (1,)"),
        ([0.1], np.ones(2), "as many as `eps`, of shape (1,), got shape (2,)"),
    ],
)
def test_one_for_each_eps(function, argument, eps, value, message):
    message = as_pattern(f"`{argument}` must be a scalar or {message}")
    with pytest.raises(ValueError, match=message):
        function(MODEL, X, Y, **PGD | {"eps": eps, argument: value})


COUNTS = [0, -1, 2.0, True, None, "3", NAN, (1, 2), np.float32(1)]


@pytest.mark.parametrize("function", [absum_jax.pgd, absum_jax.pgd_accuracy])
@pytest.mark.parametrize("value", COUNTS, ids=repr)
@pytest.mark.parametrize("argument", ["steps", "restarts"])
def test_counts(function, argument, value):
    message = f"`{argument}` must be an integer of at least 1, got {value!r}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        function(MODEL, X, Y, **PGD | {argument: value})


@pytest.mark.parametrize(
    "steps",
    [np.array(0), jnp.array(-1), jnp.array(2.0), np.array([1, 2]), np.array(True)],
    ids=repr,
)
def test_steps_of_an_array(steps):
    with pytest.raises(ValueError, match=r"^`steps` must be an integer of at least 1"):
        absum_jax.pgd(MODEL, X, Y, **PGD | {"steps": steps})


@pytest.mark.parametrize("steps", [jnp.ones(2, int), jnp.ones([])], ids=repr)
def test_traced_steps(steps):
    with pytest.raises(ValueError, match=r"^`steps` must be an integer, got"):
        jax.eval_shape(
            lambda steps: absum_jax.pgd(MODEL, X, Y, **PGD | {"steps": steps}), steps
        )


TAKES_KEY = {
    "pgd": lambda key: absum_jax.pgd(MODEL, X, Y, **PGD | {"key": key}),
    "pgd_accuracy": lambda key: absum_jax.pgd_accuracy(
        MODEL, X, Y, **PGD | {"key": key}
    ),
    "fourier_noise_accuracy": lambda key: absum_jax.fourier_noise_accuracy(
        MODEL, X, Y, 0.1, key=key
    ),
}
KEYS = [
    (None, "got NoneType"),
    (0, "got int"),
    (jax.random.split(KEY, 3), "got key<fry> of shape (3,)"),
    (jax.random.split(KEY, (4, 1)), "got key<fry> of shape (4, 1)"),
    (np.zeros((3, 2), np.uint32), "got uint32 of shape (3, 2)"),
    (np.uint32(3), "got uint32 of shape ()"),
    (np.zeros(2, np.float32), "got float32 of shape (2,)"),
    (np.zeros(2, int), "got int64 of shape (2,)"),
]


@pytest.mark.parametrize(("key", "message"), KEYS)
@pytest.mark.parametrize("name", TAKES_KEY)
def test_keys(name, key, message):
    several = ", or 4 of them, one for each image" if name == "pgd" else ""
    expected = f"`key` must be a key, as `jax.random.key(0)` makes{several}, {message}"
    with pytest.raises(ValueError, match="^" + re.escape(expected)):
        TAKES_KEY[name](key)


@pytest.mark.parametrize("name", ["pgd_accuracy", "fourier_noise_accuracy"])
def test_accuracies_take_one_key(name):
    with pytest.raises(ValueError, match=r"^`key` must be a key.*of shape \(4,\)"):
        TAKES_KEY[name](jax.random.split(KEY, 4))


TAKES_LOSS = [
    call(absum_jax.fgsm, MODEL, X, Y, eps=0.1),
    call(absum_jax.pgd, MODEL, X, Y, **PGD),
    call(absum_jax.pgd_accuracy, MODEL, X, Y, **PGD),
]


@pytest.mark.parametrize("loss", ["margin", 1.0, X], ids=["str", "float", "array"])
@pytest.mark.parametrize("function", TAKES_LOSS, ids=["fgsm", "pgd", "pgd_accuracy"])
def test_loss_that_is_no_function(function, loss):
    with pytest.raises(ValueError, match=r"^`loss` must be a function of logits and"):
        function(loss=loss)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda logits, y: logits.mean(), ()),
        (lambda logits, y: logits, (4, 3)),
        (lambda logits, y: logits[:1, 0], (1,)),
        (lambda logits, y: logits[:, :1], (4, 1)),
    ],
)
@pytest.mark.parametrize("function", TAKES_LOSS, ids=["fgsm", "pgd", "pgd_accuracy"])
def test_loss_of_another_shape(function, loss, shape):
    message = f"`loss` must return one loss for each of 4 images, got shape {shape}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        function(loss=loss)


@pytest.mark.parametrize("shape", [(4, 1), (4,), (2, 4, 3), ()], ids=str)
def test_margin_loss(shape):
    message = f"`logits` must be (batch, classes) with at least two.*got shape {shape}"
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.margin_loss(np.ones(shape, np.float32), Y)


@pytest.mark.parametrize(
    ("substitute", "message"),
    [
        (np.ones(3), "`substitute` must be a callable.*got ndarray"),
        (constant_logits(4), "`substitute` must return logits of shape (4, classes)"),
        (
            constant_logits(4, 2),
            "`y` must lie in 0..1, as `substitute` returns 2 logits, got labels",
        ),
    ],
)
def test_substitutes(substitute, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.pgd_accuracy(MODEL, X, Y, **PGD, substitute=substitute)


def test_frequencies_of_fourier_noise():
    with pytest.raises(ValueError, match=r"^`frequencies` must satisfy 0 <= l < 4"):
        absum_jax.fourier_noise_accuracy(
            MODEL, X, Y, 0.1, key=KEY, frequencies=[(4, 0)]
        )


@pytest.mark.parametrize(
    ("l", "m", "message"),
    [
        (4, 0, "`l` must lie in 0..3, got 4"),
        (0, 6, "`m` must lie in 0..5, got 6"),
        (-1, 0, "`l` must lie in 0..3, got -1"),
        (0, -1, "`m` must lie in 0..5, got -1"),
        (1.0, 0, "`l` must be an integer scalar, got 1.0"),
        (0, None, "`m` must be an integer scalar, got None"),
        ([0, 1], 0, "`l` must be an integer scalar, got [0, 1]"),
        (True, 0, "`l` must be an integer scalar, got True"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        lambda l, m: absum_jax.single_fourier_perturbation(l, m, (4, 6), 0.1),
        lambda l, m: absum_jax.single_fourier_attack(X, l, m, 0.1),
    ],
    ids=["single_fourier_perturbation", "single_fourier_attack"],
)
def test_one_frequency(function, l, m, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        function(l, m)


@pytest.mark.parametrize(
    ("frequencies", "message"),
    [
        ([], "`frequencies` must be at least one (l, m) pair, of shape (F, 2), got"),
        ((0, 1), "`frequencies` must be at least one (l, m) pair.*(2,)"),
        (np.zeros((2, 3), int), "`frequencies` must be at least one.*(2, 3)"),
        (np.zeros((0, 2), int), "`frequencies` must be at least one.*(0, 2)"),
        ([(0.0, 1.0)], "`frequencies` must be integers, got dtype float64"),
        ([(0, 1), (4, 0)], "`frequencies` must satisfy 0 <= l < 4, 0 <= m < 6.*(4, 0)"),
        (jnp.array([[0, 6]]), "`frequencies` must satisfy 0 <= l < 4.*(0, 6)"),
        ([(0, -1)], "`frequencies` must satisfy 0 <= l < 4, 0 <= m < 6, got (0, -1)"),
    ],
)
def test_frequencies(frequencies, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.single_fourier_accuracy(MODEL, X, Y, 0.1, frequencies=frequencies)


@pytest.mark.parametrize(
    ("accuracy", "frequencies"),
    [(np.ones(3), np.zeros((2, 2))), (np.ones((2, 2)), np.zeros(4)), ([], [])],
)
def test_summarize_frequencies(accuracy, frequencies):
    with pytest.raises(ValueError, match=r"^`frequencies` must be one \(l, m\) pair"):
        absum_jax.summarize_frequencies(accuracy, frequencies)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (28, "`shape` must be (height, width), got 28"),
        ((28,), "`shape` must be (height, width), got (28,)"),
        ((1, 28, 28), "`shape` must be (height, width), got (1, 28, 28)"),
        ((0, 28), "`shape` must be an integer of at least 1, got 0"),
        ((28, 2.5), "`shape` must be an integer of at least 1, got 2.5"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        absum_jax.frequency_radius,
        lambda shape: absum_jax.single_fourier_perturbation(0, 0, shape, 0.1),
    ],
    ids=["frequency_radius", "single_fourier_perturbation"],
)
def test_shapes(function, shape, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        function(shape)


def test_scale_of_a_perturbation():
    with pytest.raises(ValueError, match=r"`scale` must be one of .* got 'L2'"):
        absum_jax.single_fourier_perturbation(0, 0, (4, 4), 0.1, scale="L2")


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (absum_jax.radial_mean, (4,)),
        (absum_jax.radial_mean, ()),
        (absum_jax.plot_radial_mean, (4,)),
        (absum_jax.plot_radial_mean, (2, 4, 4)),
        (absum_jax.plot_frequency_heatmap, (4,)),
        (absum_jax.plot_frequency_heatmap, (4, 4, 3)),
    ],
)
def test_grids(function, shape):
    expected = rf"^`grid` must have the axes .*got shape {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=expected):
        function(np.ones(shape))


TRACED = {
    "threshold": lambda n: absum_jax.prox_absum(KERNEL, n),
    "strength": lambda n: absum_jax.absum(n, learning_rate=n).update(
        PARAMS, absum_jax.absum(n, learning_rate=n).init(PARAMS), PARAMS
    ),
    "eps": lambda n: absum_jax.single_fourier_attack(X, 0, 1, n),
    "images": lambda n: absum_jax.single_fourier_attack(X * n * 300, 0, 1, 0.1),
    "bounds": lambda n: absum_jax.single_fourier_attack(X, 0, 1, 0.1, bounds=(n, n)),
    "l": lambda n: absum_jax.single_fourier_attack(X, n.astype(int), 1, 0.1),
    "labels": lambda n: absum_jax.accuracy(MODEL, X, jnp.full(4, n, int)),
    "frequencies": lambda n: absum_jax.single_fourier_accuracy(
        MODEL, X, Y, 0.1, frequencies=jnp.full((1, 2), n, int)
    ),
    "eps of pgd": lambda n: absum_jax.pgd(MODEL, X, Y, **PGD | {"eps": n}),
    "list of eps": lambda n: absum_jax.pgd(
        MODEL, X, Y, **PGD | {"eps": jnp.stack([n, 2 * n]), "step_size": n}
    ),
    "steps": lambda n: absum_jax.pgd(MODEL, X, Y, **PGD | {"steps": n.astype(int)}),
    "images of fgsm": lambda n: absum_jax.fgsm(MODEL, X * n * 300, Y, eps=0.1),
    "labels of pgd": lambda n: absum_jax.pgd_accuracy(
        MODEL, X, jnp.full(4, n, int), **PGD
    ),
    "norm": lambda n: absum_jax.fourier_noise_accuracy(MODEL, X, Y, n, key=KEY),
    "radius": lambda n: absum_jax.low_pass(X, n),
    "radii": lambda n: absum_jax.high_pass_accuracy(MODEL, X, Y, jnp.stack([n, n])),
}


@pytest.mark.parametrize("name", TRACED)
def test_values_are_not_looked_at_inside_jit(name):
    result = jax.eval_shape(TRACED[name], jnp.float32(-1.0))
    assert jax.tree.leaves(result)


def test_concrete_values_inside_jit_are_looked_at():
    labels, images = jnp.array(Y + 1), jnp.array(X * 255)
    with pytest.raises(ValueError, match="`y` must lie in"):
        jax.eval_shape(lambda x: absum_jax.accuracy(MODEL, x, labels), X)
    with pytest.raises(ValueError, match="`x` must lie within"):
        jax.eval_shape(
            lambda eps: absum_jax.single_fourier_attack(images, 0, 1, eps), 0.1
        )
    with pytest.raises(ValueError, match="`l` must lie in"):
        jax.eval_shape(lambda eps: absum_jax.single_fourier_attack(X, 4, 1, eps), 0.1)
    with pytest.raises(ValueError, match="`radius` must be non-negative"):
        jax.eval_shape(lambda x: absum_jax.low_pass(x, -1.0), X)


def test_a_concrete_list_inside_jit_is_looked_at():
    negative = jnp.array([0.1, -0.1])
    with pytest.raises(ValueError, match="`eps` must be non-negative"):
        jax.eval_shape(lambda x: absum_jax.fgsm(MODEL, x, Y, eps=negative), X)
    with pytest.raises(ValueError, match="`radius` must be non-negative"):
        jax.eval_shape(lambda x: absum_jax.low_pass_accuracy(MODEL, x, Y, negative), X)
