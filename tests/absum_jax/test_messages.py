"""Wrong input: a ValueError that names the argument.

One wrong value for each argument of each public function; all kinds of wrong values for
each check, with one function; and what arguments must be to each other.
"""

import array
import collections
import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import calls
from four_images import KERNEL, KEY, MODEL, PARAMS, PGD, X, Y, accuracy, pgd

import absum_jax

NAN = float("nan")


def as_pattern(message):
    return "^" + ".*".join(re.escape(part) for part in message.split(".*"))


# One wrong value for each argument.

WRONG = {
    "accuracy": ["a"],
    "auto_attack": 1,
    "ax": 3,
    "batch_size": 0,
    "benchmark": "imagenet-c",
    "bounds": (1.0, 0.0),
    "components": ("pgd",),
    "early_stop": "yes",
    "eps": -0.5,
    "every": 0,
    "fn": 3,
    "frequencies": [(99, 0)],
    "grid": np.ones(4),
    "groups": 0,
    "high": -1,
    "images": 0,
    "init_radius": -1,
    "input_shape": (0, 4),
    "input_shapes": {"other/kernel": (4, 4)},
    "kernel": np.ones((3, 3, 2, 2), complex),
    "kernel_dilation": 0,
    "key": 3,
    "kind": "fog",
    "l": 99,
    "learning_rate": -1,
    "logits": np.ones(3),
    "logits_fn": 3,
    "loss": 3,
    "low": -1,
    "m": 99,
    "mask": "yes",
    "max_norm": 0,
    "method": "qr",
    "norm": NAN,
    "perturbation": np.ones(3),
    "progress": True,
    "projections": 0,
    "prox": 3,
    "queries": 0,
    "radii": [-1],
    "radius": -1,
    "report": None,
    "rescale": 1,
    "restarts": 0,
    "scale": "l1",
    "severity": 0,
    "shape": 28,
    "share": 2,
    "single_fourier_eps": -1,
    "spatial_axes": (9,),
    "spectrum": -np.ones((4, 4)),
    "step_size": -1,
    "steps": 0,
    "strength": -1,
    "strides": 0,
    "substitute": 3,
    "substitutes": {"other": 3},
    "target": np.array([-1]),
    "targeted": 1,
    "threshold": -1,
    "top_k": 0,
    "updates": {},
    "x": np.ones(3),
    "y": np.array([-1]),
    "z": NAN,
}
# Trees of any structure, and arguments of the user's own function.
ANY = {"params"}
FUNCTIONS = {call.label: call for call in calls("small") if call.kind != "class"}


def parameters(call):
    """The arguments of a call, and those with a default."""
    signature = inspect.signature(getattr(absum_jax, call.name)).parameters.values()
    named = {p.name for p in signature if p.kind is not p.VAR_KEYWORD}
    return sorted((named | set(call.arguments)) - ANY)


ARGUMENTS = [
    (label, name)
    for label, call in FUNCTIONS.items()
    if call.name not in ("canonical_convolutions", "conv_input_shapes")
    for name in parameters(call)
]


@pytest.mark.parametrize(("label", "name"), ARGUMENTS)
def test_every_argument_is_named(label, name):
    call = FUNCTIONS[label]
    with pytest.raises(ValueError, match=rf"^`{name}\b") as error:
        call.function(**call.arguments | {name: WRONG[name]})
    # Others may follow, but none that the function does not have.
    others = re.findall(r"`([a-z_]+)`", str(error.value))
    assert set(others) <= {*parameters(call), *ANY}


@pytest.mark.parametrize(
    "function",
    [
        absum_jax.canonical_convolutions,
        lambda fn: absum_jax.conv_input_shapes(fn, PARAMS, X),
    ],
)
def test_functions(function):
    with pytest.raises(ValueError, match="`fn` must be a callable"):
        function(3)


# All kinds of wrong values for each check.

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
    ([[0.1], [0.1, 0.2]], "must be a real number, got"),
    (np.ones(2), r"must be a scalar, got shape \(2,\)"),
    (10**400, "must be a real number, got 1000"),
    (lambda step: 0.1, "must be a real number, got <function"),
]


@pytest.mark.parametrize(("value", "message"), NUMBERS)
def test_non_negative_scalars(value, message):
    with pytest.raises(ValueError, match=f"^`threshold` {message}"):
        absum_jax.prox_absum(KERNEL, value)


FINITE = {
    "strength": lambda n: absum_jax.absum(n, learning_rate=0.0),
    "learning_rate": lambda n: absum_jax.l1(0.0, learning_rate=n),
    "eps": lambda n: absum_jax.single_fourier_attack(X, 0, 1, n),
    "norm": lambda n: absum_jax.fourier_noise_accuracy(MODEL, X, Y, n, key=KEY),
    "z": lambda n: absum_jax.wilson_interval(0.5, 10, n),
}


MASKED = np.ma.masked_array([1, 2, 0, 1], mask=[0, 0, 0, 1])
NO_NUMBERS = [
    *(array.array("d", [0.1, 0.2]), collections.deque([0.1]), {0.1}),
    *(jax.ShapeDtypeStruct((), np.float32), np.timedelta64(1, "s"), np.ma.masked),
    *(MASKED, KEY, jax.random.split(KEY)),
]
ARRAYS = {
    "threshold": lambda value: absum_jax.prox_l1(KERNEL, value),
    "l": lambda value: absum_jax.single_fourier_perturbation(value, 0, (4, 4), 0.1),
    "bounds": lambda value: pgd(bounds=(0, value)),
    "steps": lambda value: pgd(steps=value),
    "batch_size": lambda value: accuracy(batch_size=value),
    "strides": lambda value: absum_jax.conv_spectral_norm(
        KERNEL, (9, 9), strides=value
    ),
    "spatial_axes": lambda value: absum_jax.absum_penalty(KERNEL, spatial_axes=value),
    "logits": lambda value: absum_jax.margin_loss(value, Y),
    "grid": absum_jax.radial_mean,
    "x": lambda value: accuracy(x=value),
    "y": lambda value: accuracy(y=value),
    "shape": absum_jax.frequency_radius,
    "radius": lambda value: absum_jax.low_pass(X, value),
    "low": lambda value: absum_jax.band_pass(X, value, 1),
    "severity": lambda value: absum_jax.corrupt(X, "contrast", value, key=KEY),
    "share": lambda value: absum_jax.wilson_interval(value, 10),
}


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("name", ARRAYS)
def test_other_objects_are_no_numbers(name, value):
    with pytest.raises(ValueError, match=f"^`{name}` must"):
        ARRAYS[name](value)


def test_any_byte_order_and_any_array_of_integers():
    assert accuracy(x=X.astype(">f4"), y=Y.astype(">i8")) == accuracy()
    big, sizes = KERNEL.astype(">f8"), jnp.array([4, 4])
    expected = absum_jax.prox_absum(KERNEL, 0.1)
    found = absum_jax.prox_absum(
        big, np.array(0.1, ">f4"), spatial_axes=jnp.array([0, 1])
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    expected = absum_jax.conv_spectral_norm(KERNEL, (4, 4), strides=2)
    found = absum_jax.conv_spectral_norm(big, sizes, strides=jnp.array([2, 2]))
    assert found == expected
    shapes = {"conv/kernel": (4, 4)}, {"conv/kernel": sizes}
    found, expected = (
        absum_jax.apply_spectral_normalization(PARAMS, 1, each) for each in shapes
    )
    np.testing.assert_array_equal(found["conv"]["kernel"], expected["conv"]["kernel"])
    radii = absum_jax.low_pass_accuracy(MODEL, X, Y, range(1, 3)).strength
    np.testing.assert_array_equal(radii, [1, 2])


@pytest.mark.parametrize("shape", [(4, 0, 6, 1), (4, 4, 0, 1), (4, 4, 6, 0)])
def test_images_without_pixels(shape):
    for function in (lambda x: accuracy(x=x), lambda x: absum_jax.low_pass(x, 1)):
        with pytest.raises(ValueError, match=r"^`x` must hold images of at least one"):
            function(np.ones(shape, np.float32))


@pytest.mark.parametrize("value", [np.inf, 1e39], ids=str)
@pytest.mark.parametrize("name", FINITE)
def test_finite_scalars(name, value):
    with pytest.raises(ValueError, match=f"^`{name}` must be finite, got "):
        FINITE[name](value)


@pytest.mark.parametrize("integer", [2**40, np.int64(2**40)], ids=["int", "int64"])
def test_large_integers_are_no_small_ones(integer):
    kernel = np.full((3, 3, 1, 1), 2.0**30, np.float32)
    np.testing.assert_allclose(absum_jax.prox_absum(kernel, integer), 0, atol=200)
    np.testing.assert_array_equal(absum_jax.low_pass(X, integer), X)
    assert absum_jax.low_pass_accuracy(MODEL, X, Y, [integer]).strength == 2.0**40


LISTS = [
    (-0.5, "must be non-negative, got -0.5"),
    (NAN, "must be non-negative, got nan"),
    ("0.1", "must be a real number, got '0.1'"),
    ([], r"must be a scalar or a list of at least one, got shape \(0,\)"),
    (jnp.ones(0), r"must be a scalar or a list of at least one, got shape \(0,\)"),
    ([[0.1, 0.2]], "must be a scalar or a list of scalars, got"),
    (np.ones((2, 0)), r"must be a scalar or a list of at least one, .* \(2, 0\)"),
    ([[0.1], [0.1, 0.2]], "must be a scalar or a list of scalars"),
    ([0.1, -0.1], "must be non-negative, got .*-0.1"),
    ((0.1, NAN), "must be non-negative, got .*nan"),
    (np.array([-1, 1]), "must be non-negative, got .*-1"),
    (jnp.array([0.5, -0.5]), "must be non-negative, got .*-0.5"),
    ([None, 0.1], "must be a real number, got None"),
    (["a"], "must be a real number, got .*'a'"),
    ([True, False], "must be a real number, got .*True"),
    (np.ones(2, complex), "must be a real number, got .*1"),
]


@pytest.mark.parametrize(("value", "message"), LISTS)
def test_non_negative_lists(value, message):
    with pytest.raises(ValueError, match=f"^`radius` {message}"):
        absum_jax.low_pass_accuracy(MODEL, X, Y, value)


COUNTS = [0, -1, 2.0, True, None, "3", NAN, (1, 2), np.float32(1)]


@pytest.mark.parametrize("value", COUNTS, ids=repr)
@pytest.mark.parametrize("argument", ["steps", "restarts"])
def test_counts(argument, value):
    message = f"`{argument}` must be an integer of at least 1, got {value!r}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        pgd(**{argument: value})


@pytest.mark.parametrize("value", [2**31, np.int64(2**40), 10**400], ids=str)
@pytest.mark.parametrize("argument", ["steps", "restarts"])
def test_counts_beyond_int32(argument, value):
    message = f"`{argument}` must be an integer of at most 2147483647, got "
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        pgd(**{argument: value})


@pytest.mark.parametrize(
    "steps",
    [np.array(0), jnp.array(-1), jnp.array(2.0), np.array([1, 2]), np.array(True)],
    ids=repr,
)
def test_steps_of_an_array(steps):
    with pytest.raises(ValueError, match=r"^`steps` must be an integer of at least 1"):
        pgd(steps=steps)


@pytest.mark.parametrize("steps", [jnp.ones(2, int), jnp.ones([])], ids=repr)
def test_traced_steps(steps):
    with pytest.raises(ValueError, match=r"^`steps` must be an integer, got"):
        jax.eval_shape(lambda steps: pgd(steps=steps), steps)


KERNELS = [
    (np.ones((3, 2)), "`kernel` of shape (3, 2) has no spatial axes: at least three"),
    (np.ones((3, 3, 1, 2), int), "`kernel` must have a real floating-point dtype, got"),
    (None, "`kernel` must be an array of numbers, got None"),
    ("abc", "`kernel` must be an array of numbers, got 'abc'"),
    ([[1.0], [1.0, 2.0]], "`kernel` must be an array of numbers, got [["),
    (np.array(["a"]), "`kernel` must be an array of numbers, got array(['a']"),
]


@pytest.mark.parametrize(("kernel", "message"), KERNELS)
def test_kernels(kernel, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        absum_jax.prox_absum(kernel, 0.1)


AXES = [(0, 4), (-5, 1), (1, 1), (0, -4), (), 2, (0.0, 1.0), ("h", "w"), np.eye(2)]


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_spatial_axes(axes):
    expected = "`spatial_axes` must be distinct axes of a kernel of shape (3, 3, 1, 2)"
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        absum_jax.prox_absum(KERNEL, 0.1, spatial_axes=axes)
    assert repr(axes) in str(error.value)


def constant_logits(*shape, dtype=jnp.float32):
    return lambda x: jnp.zeros(shape, dtype)


EVALUATION_INPUT = [
    ({"y": Y[:3]}, "`y` must hold one label for each of the 4 images in `x`.*(3,)"),
    ({"y": np.eye(4, dtype=int)}, "`y` must hold one label for each.*(4, 4)"),
    ({"y": Y.astype(float)}, "`y` must be integer class labels, got dtype float64"),
    ({"y": Y == 0}, "`y` must be integer class labels, got dtype bool"),
    ({"y": Y + 1}, "`y` must lie in 0..2, as `logits_fn` returns 3.*from 1 to 3"),
    ({"y": Y - 1}, "`y` must lie in 0..2.*from -1 to 1"),
    ({"y": Y + 2**32}, "`y` must be integer class labels in the range of int32, got"),
    ({"y": Y.astype(np.uint64) + 2**63}, "`y` must be integer class labels in the"),
    ({"x": (X * 255).astype(np.uint8)}, "`x` must be floating-point.*uint8.*by 255"),
    ({"x": X * 1j}, "`x` must be floating-point images, got dtype complex"),
    ({"x": X[0]}, "`x` must have the axes (batch, height, width, channels).*(4, 6, 1)"),
    ({"x": X[None]}, "`x` must have the axes (batch,.*(1, 4, 4, 6, 1)"),
    ({"x": X[:0], "y": Y[:0]}, "`x` and `y` must hold at least one image"),
    (
        {"x": X * NAN},
        "`x` must contain only finite numbers, got values from nan",
    ),
    ({"x": np.where(X > 0, -np.inf, X)}, "`x` must contain only finite numbers"),
    ({"batch_size": 2.0}, "`batch_size` must be an integer of at least 1, got 2.0"),
    ({"top_k": 4}, "`top_k` must be at most the number of classes, 3, got 4"),
    ({"top_k": ()}, "`top_k` must hold at least one integer, got ()"),
    ({"top_k": (1, 0)}, "`top_k` must be an integer of at least 1, got 0"),
    ({"top_k": [1, 2]}, "`top_k` must be an integer of at least 1, got [1, 2]"),
    ({"top_k": (4, 1)}, "`top_k` must be at most the number of classes, 3, got (4, 1)"),
    ({"logits_fn": np.ones(3)}, "`logits_fn` must be a callable.*got ndarray"),
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
    *(
        (
            {"logits_fn": constant_logits(4, 3, dtype=dtype)},
            f"`logits_fn` must return real floating-point logits, got {dtype.__name__}",
        )
        for dtype in (jnp.complex64, jnp.int32, jnp.bool_)
    ),
]


@pytest.mark.parametrize(("changes", "message"), EVALUATION_INPUT)
def test_evaluation(changes, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        accuracy(**changes)


ATTACK_INPUT = [
    pair for pair in EVALUATION_INPUT if not pair[0].keys() & {"batch_size", "top_k"}
]


@pytest.mark.parametrize(("changes", "message"), ATTACK_INPUT)
def test_attack(changes, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        pgd(**changes)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (X * 255, {}, "`x` must lie within bounds=(0.0, 1.0), got values from 127.5"),
        (X - 0.5 - 2e-6, {}, "`x` must lie within bounds=(0.0, 1.0), got values"),
        (X + 0.5 + 2e-6, {}, "`x` must lie within bounds=(0.0, 1.0), got values"),
        (
            X * NAN,
            {"bounds": (-np.inf, np.inf)},
            "`x` must contain only finite numbers",
        ),
        (
            X * np.inf,
            {"bounds": (-np.inf, np.inf)},
            "`x` must contain only finite numbers",
        ),
        (X, {"bounds": (-1, 0.4)}, "`x` must lie within bounds=(-1, 0.4), got values"),
        (X, {"bounds": (0.5, 0.5)}, "`bounds` must satisfy low < high, got (0.5, 0.5)"),
        (X, {"bounds": (0, NAN)}, "`bounds` must satisfy low < high, got (0, nan)"),
        (X, {"bounds": 1.0}, "`bounds` must be a pair (low, high), got 1.0"),
        (X, {"bounds": (0, 1, 2)}, "`bounds` must be a pair (low, high), got (0, 1, 2"),
        (X, {"bounds": None}, "`bounds` must be a pair (low, high), got None"),
        (X, {"bounds": {0, 1}}, "`bounds` must be a pair (low, high), got {0, 1}"),
        (X, {"bounds": ("a", "b")}, "`bounds` must be two real numbers, got ('a', 'b"),
        (X[0, 0], {}, "`x` must have the axes (..., height, width, channels), got"),
    ],
)
def test_attacked_images(x, options, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.single_fourier_attack(x, 0, 1, 0.1, **options)


@pytest.mark.parametrize("offset", [-1e-7, 1e-7])
def test_rounding_beyond_the_bounds_is_accepted(offset):
    x = np.full_like(X, offset if offset < 0 else 1 + 1.2e-7)
    assert x.min() < 0 or x.max() > 1
    attacked = absum_jax.single_fourier_attack(x, 0, 1, 0.1)
    assert attacked.min() >= 0
    assert attacked.max() <= 1


def test_clean_accuracy_does_not_look_at_the_range():
    assert accuracy(x=X * 255, y=np.asarray(MODEL(X).argmax(-1))) == 1.0


KEYS = [
    (None, "got NoneType"),
    (0, "got int"),
    (jax.random.split(KEY, 3), "got key<fry> of shape (3,)"),
    (jax.random.split(KEY, (4, 1)), "got key<fry> of shape (4, 1)"),
    (np.zeros((3, 2), np.uint32), "got uint32 of shape (3, 2)"),
    (np.zeros(3, np.uint32), "got uint32 of shape (3,)"),
    (np.zeros((4, 3), np.uint32), "got uint32 of shape (4, 3)"),
    (np.uint32(3), "got uint32 of shape ()"),
    (np.zeros(2, np.float32), "got float32 of shape (2,)"),
    (np.zeros(2, int), "got int64 of shape (2,)"),
]


@pytest.mark.parametrize(("key", "message"), KEYS)
def test_keys(key, message):
    several = ", or 4 of them, one for each image"
    expected = f"`key` must be a key, as `jax.random.key(0)` makes{several}, {message}"
    with pytest.raises(ValueError, match="^" + re.escape(expected)):
        pgd(key=key)


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(absum_jax.pgd_accuracy, **PGD),
        functools.partial(absum_jax.fourier_noise_accuracy, norm=0.1),
    ],
)
def test_accuracies_take_one_key(function):
    with pytest.raises(ValueError, match=r"^`key` must be a key.*of shape \(4,\)"):
        function(MODEL, X, Y, **{"key": jax.random.split(KEY, 4)})


@pytest.mark.parametrize(
    ("l", "message"),
    [
        (4, "`l` must lie in 0..3, got 4"),
        (-1, "`l` must lie in 0..3, got -1"),
        (1.0, "`l` must be an integer scalar, got 1.0"),
        (None, "`l` must be an integer scalar, got None"),
        ([0, 1], "`l` must be an integer scalar, got [0, 1]"),
        ([[0], [0, 1]], "`l` must be an integer scalar, got [[0]"),
        (True, "`l` must be an integer scalar, got True"),
    ],
)
def test_one_frequency(l, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        absum_jax.single_fourier_perturbation(l, 0, (4, 6), 0.1)


@pytest.mark.parametrize(
    ("frequencies", "message"),
    [
        ([], "`frequencies` must be at least one (l, m) pair, of shape (F, 2), got"),
        ((0, 1), "`frequencies` must be at least one (l, m) pair.*(2,)"),
        (np.zeros((2, 3), int), "`frequencies` must be at least one.*(2, 3)"),
        ([[0, 1], [2]], "`frequencies` must be an array of numbers, got [[0, 1], [2]]"),
        ([(0.0, 1.0)], "`frequencies` must be integers, got dtype float64"),
        ([(0, 1), (4, 0)], "`frequencies` must satisfy 0 <= l < 4, 0 <= m < 6.*(4, 0)"),
        (jnp.array([[0, 6]]), "`frequencies` must satisfy 0 <= l < 4.*(0, 6)"),
        ([(0, -1)], "`frequencies` must satisfy 0 <= l < 4, 0 <= m < 6, got (0, -1)"),
        (
            [(0, 2**32)],
            "`frequencies` must satisfy 0 <= l < 4, 0 <= m < 6, got (0, 429",
        ),
    ],
)
def test_frequencies(frequencies, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.single_fourier_accuracy(MODEL, X, Y, 0.1, frequencies=frequencies)


@pytest.mark.parametrize(
    ("accuracy", "frequencies", "message"),
    [
        (
            np.ones(3),
            np.zeros((2, 2)),
            "`frequencies` must be one (l, m) pair for each",
        ),
        (
            np.ones((2, 2)),
            np.zeros(4),
            "`frequencies` must be one (l, m) pair for each",
        ),
        ([], [], "`frequencies` must be one (l, m) pair for each"),
        ([1.0], [[0.0, 1.0]], "`frequencies` must be integers, got dtype float64"),
        ([NAN], [[0, 1]], "`accuracy` must contain only finite numbers, got values"),
        ([1j], [[0, 1]], "`accuracy` must be real, got dtype complex128"),
    ],
)
def test_summarize_frequencies(accuracy, frequencies, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.summarize_frequencies(accuracy, frequencies)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (28, "`shape` must be (height, width), got 28"),
        ((28,), "`shape` must be (height, width), got (28,)"),
        ((1, 28, 28), "`shape` must be (height, width), got (1, 28, 28)"),
        ((0, 28), "`shape` must be an integer of at least 1, got 0"),
        ((28, 2.5), "`shape` must be an integer of at least 1, got 2.5"),
        ({28, 32}, "`shape` must be (height, width), got {"),
    ],
)
def test_shapes(shape, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        absum_jax.frequency_radius(shape)


GRIDS = [
    (np.ones(4), "`grid` must have the axes .*got shape (4,)"),
    (np.ones((0, 4)), "`grid` must have the axes .*got shape (0, 4)"),
    (np.full((2, 2), NAN), "`grid` must contain only finite numbers, got"),
    (np.ones((2, 2), complex), "`grid` must be real, got dtype complex"),
    (None, "`grid` must be an array of numbers, got None"),
]


@pytest.mark.parametrize(("grid", "message"), GRIDS)
@pytest.mark.parametrize(
    "function", [absum_jax.radial_mean, absum_jax.plot_frequency_heatmap]
)
def test_grids(function, grid, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        function(grid)


@pytest.mark.parametrize(
    ("spectrum", "message"),
    [
        (np.full((2, 2), np.inf), "`spectrum` must contain only finite numbers"),
        (np.array([[1.0, -1.0]]), "`spectrum` must be non-negative powers"),
    ],
)
def test_spectra(spectrum, message):
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.normalized_log(spectrum)


# What arguments must be to each other.


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y[:3], "`y` must hold one label for each of the 4 rows of `logits`"),
        (Y - 1, "`y` must lie in 0..2, as `logits` has 3 classes, got labels from -1"),
        (
            Y + 1,
            "`y` must lie in 0..2, as `logits` has 3 classes, got labels from 1 to",
        ),
        (Y + 2**32, "`y` must be integer class labels in the range of int32"),
    ],
)
def test_labels_of_margin_loss(y, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        absum_jax.margin_loss(MODEL(X), y)


@pytest.mark.parametrize("shape", [(4, 1), (4,), (2, 4, 3), (), (0, 3)], ids=str)
def test_logits_of_margin_loss(shape):
    message = f"`logits` must be (batch, classes) with at least two.*got shape {shape}"
    with pytest.raises(ValueError, match=as_pattern(message)):
        absum_jax.margin_loss(np.ones(shape, np.float32), Y)


@pytest.mark.parametrize("argument", ["step_size", "init_radius"])
@pytest.mark.parametrize(
    ("eps", "value", "message"),
    [
        (0.1, [0.1], "as many as `eps`, of shape (), got shape (1,)"),
        ([0.1, 0.2], [0.1], "as many as `eps`, of shape (2,), got shape (1,)"),
        ([0.1], np.ones(2), "as many as `eps`, of shape (1,), got shape (2,)"),
    ],
)
def test_one_for_each_eps(argument, eps, value, message):
    message = as_pattern(f"`{argument}` must be a scalar or {message}")
    with pytest.raises(ValueError, match=message):
        pgd(**{"eps": eps, argument: value})


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda logits, y: logits.mean(), ()),
        (lambda logits, y: logits, (4, 3)),
        (lambda logits, y: logits[:1, 0], (1,)),
        (lambda logits, y: logits[:, :1], (4, 1)),
        (lambda logits, y: 3, ()),
    ],
)
def test_loss_of_another_shape(loss, shape):
    message = f"`loss` must return one loss for each of 4 images, got shape {shape}"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        pgd(loss=loss)


@pytest.mark.parametrize(
    ("substitute", "message"),
    [
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


def test_a_large_dilation_does_not_wrap():
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    values = (
        absum_jax.conv_singular_values(kernel, (5, 5), kernel_dilation=dilation)
        for dilation in (2, 2 + 5 * 2**62)
    )
    np.testing.assert_array_equal(*values)
