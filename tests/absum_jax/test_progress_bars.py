"""Progress of long evaluations: the same numbers, and one program."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tqdm
from jax.tree_util import Partial

import absum_jax

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(20, 5, 6, 2)).astype(np.float32)
Y = RNG.integers(0, 3, 20)
KEY = jax.random.key(0)
WEIGHTS = RNG.normal(size=(60, 3)).astype(np.float32)
# Fourteen frequencies, which are three parts of five with one that is repeated.
SOME = np.stack([np.arange(14) % 5, np.arange(14) % 6], 1)


def linear(weights, x):
    return (x - 0.5).reshape(len(x), -1) @ weights


MODEL = Partial(linear, WEIGHTS)
fourier = functools.partial(absum_jax.single_fourier_accuracy, MODEL, X, Y, 0.4)
noise = functools.partial(
    absum_jax.fourier_noise_accuracy, MODEL, X, Y, 1.0, key=KEY, batch_size=7
)
report = functools.partial(
    absum_jax.robustness_report, MODEL, X, Y, key=KEY, single_fourier_eps=0.1,
    eps=[0.1, 0.2], step_size=0.1, steps=2, radii=[1, 2], substitutes={"other": MODEL},
)  # fmt: skip


@pytest.mark.parametrize("function", [fourier, noise])
@pytest.mark.parametrize("frequencies", [None, SOME, SOME[:4]])
@pytest.mark.parametrize("top_k", [1, (1, 2)])
def test_the_same_numbers(function, frequencies, top_k):
    options = {"frequencies": frequencies, "top_k": top_k}
    expected = function(**options)
    assert len(np.unique(expected.accuracy)) > 1
    found = function(**options, progress=lambda steps: reversed(steps))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert jax.tree.map(lambda leaf: (type(leaf), leaf.dtype), found) == jax.tree.map(
        lambda leaf: (type(leaf), leaf.dtype), expected
    )


def test_the_same_report():
    steps = []

    def progress(names):
        for name in names:
            steps.append(name)
            yield name
            steps.append("done")

    found, expected = report(progress=progress), report()
    assert found.rows == expected.rows
    assert found.conditions == expected.conditions
    np.testing.assert_array_equal(found.grid, expected.grid)
    names = ["clean and filters", "single Fourier", "PGD", "PGD on other"]
    assert steps == [text for name in names for text in (name, "done")]


@pytest.mark.parametrize(("function", "total"), [(fourier, 5), (noise, 5), (report, 4)])
def test_a_bar_in_one_line(function, total):
    stream = io.StringIO()
    function(progress=functools.partial(tqdm.tqdm, file=stream))
    assert f"{total}/{total}" in stream.getvalue()


@pytest.mark.parametrize("as_data", [True, False])
def test_one_program_whatever_the_number_of_parts(as_data):
    traces = []

    def apply(weights, x):
        traces.append(x.shape)
        return linear(weights, x)

    model = Partial(apply, WEIGHTS) if as_data else lambda x: apply(WEIGHTS, x)

    def traced(**options):
        traces.clear()
        absum_jax.single_fourier_accuracy(model, X, Y, 0.1, **options)
        return len(traces)

    whole = traced()
    # Of the program of a part, and of none for the check that has been traced before.
    by_rows = traced(progress=tqdm.tqdm)
    assert 0 < by_rows <= whole
    if as_data:
        assert traced() == traced(progress=tqdm.tqdm) == 0
    else:
        assert traced(frequencies=SOME, progress=tqdm.tqdm) == by_rows


def test_without_progress_it_is_one_loop_over_all_frequencies():
    def accuracy(x):
        return absum_jax.single_fourier_accuracy(MODEL, x, Y, 0.1).accuracy

    program = str(jax.make_jaxpr(accuracy)(X))
    assert "callback" not in program
    assert "length=30" in program


def test_traced_values_are_refused():
    def of_frequencies(pairs):
        return fourier(frequencies=pairs, progress=tqdm.tqdm).mean

    def of_weights(weights):
        return absum_jax.single_fourier_accuracy(
            Partial(linear, weights), X, Y, 0.1, progress=lambda steps: steps
        ).mean

    for function, argument in (
        (jax.jit(of_frequencies), SOME),
        (jax.vmap(of_weights), WEIGHTS[None]),
    ):
        with pytest.raises(ValueError, match="`progress` must be None where values"):
            function(argument)


@pytest.mark.parametrize("function", [fourier, report])
@pytest.mark.parametrize(
    ("progress", "message"),
    [
        (True, "`progress` must be a function such as `tqdm.tqdm`, or None, got True"),
        (lambda steps: None, "`progress` must return an iterable of the steps"),
        (lambda steps: steps[:2], r"`progress` must yield all \d steps, got 2 of them"),
        (lambda steps: [steps[1], steps[1]], "`progress` must yield each step once"),
        (lambda steps: ["other"], "`progress` must yield each step once, got 'other'"),
    ],
)
def test_wrong_progress(function, progress, message):
    with pytest.raises(ValueError, match=message):
        function(progress=progress)


def test_arrays_that_are_sharded():
    devices = np.array(jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(
        jax.sharding.Mesh(devices, ("data",)), jax.sharding.PartitionSpec("data")
    )
    x, y = (jax.device_put(jnp.asarray(a), sharding) for a in (X, Y))
    found = absum_jax.single_fourier_accuracy(MODEL, x, y, 0.4, progress=tqdm.tqdm)
    np.testing.assert_array_equal(found.accuracy, fourier().accuracy)
