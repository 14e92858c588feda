"""The table of docs/evaluation.md says what each function supports."""

import inspect
import pathlib

import jax
import jax.numpy as jnp
import pytest

import absum_jax

PAGE = pathlib.Path(__file__).parents[1] / "docs/evaluation.md"
OPTIONS = {
    "key": jax.random.key(0),
    "l": 1,
    "m": 0,
    "eps": 0.25,
    "single_fourier_eps": 0.25,
    "step_size": 0.125,
    "steps": 2,
    "queries": 2,
}


def _rows():
    """Reads the last table of the page: cells by function and column."""
    lines = PAGE.read_text().splitlines()
    [start] = [i for i, line in enumerate(lines) if line.startswith("| function |")]
    table = [
        [cell.strip() for cell in line.replace("`", "").strip("|").split("|")]
        for line in lines[start:]
        if line.startswith("|")
    ]
    header, _, *rows = table
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


ROWS = _rows()


def _logits(x):
    return x.reshape(len(x), -1)


def _outcome(name, **changed):
    """Shapes of the result on traced images; no program is compiled."""
    function = getattr(absum_jax, name)
    parameters = inspect.signature(function).parameters
    known = OPTIONS | {"logits_fn": _logits, "y": jnp.arange(3)} | changed
    options = {key: known[key] for key in parameters if key in known}
    x = jnp.full((3, 2, 2, 1), 0.5)
    return jax.eval_shape(lambda x: function(x=x, **options), x)


@pytest.mark.parametrize("name", ROWS)
def test_options_are_parameters(name):
    row, function = ROWS[name], getattr(absum_jax, name)
    parameters = inspect.signature(function).parameters
    for option in ("targeted", "loss", "restarts", "early_stop"):
        assert (row[option] == "yes") == (option in parameters), option
    assert ("L2" in row["norm"]) == ("norm" in parameters)
    assert (row["norm"] == "scale") == (name.startswith("single_fourier"))


@pytest.mark.parametrize("name", ROWS)
def test_lists_passes_and_transformations(name):
    row = ROWS[name]
    if row["jit, vmap"] != "yes":
        with pytest.raises(jax.errors.TracerArrayConversionError):
            _outcome(name)
        return
    result = _outcome(name)
    assert (row["passes"] == "yes") == (getattr(result, "forward", None) is not None)
    if row["list of eps"] == "yes":
        shapes = jax.tree.leaves(_outcome(name, eps=[0.125, 0.25]))
        assert (2, *jax.tree.leaves(result)[0].shape) == shapes[0].shape
    else:
        with pytest.raises(ValueError, match="eps"):
            _outcome(name, eps=[0.125, 0.25])


def test_the_report_takes_a_list_of_eps_and_counts_no_passes():
    row = ROWS["robustness_report"]
    assert (row["list of eps"], row["passes"]) == ("yes", "-")
    options = OPTIONS | {"eps": [0.125, 0.25]}
    report = absum_jax.robustness_report(
        _logits, jnp.full((3, 2, 2, 1), 0.5), jnp.arange(3),
        **{k: v for k, v in options.items() if k not in ("l", "m", "queries")},
    )  # fmt: skip
    assert [row.strength for row in report.rows if row.attack == "PGD"] == [0.125, 0.25]
    assert not any("forward" in row._asdict() for row in report.rows)
