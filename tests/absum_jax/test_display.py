"""What notebooks and consoles show of results, and their rows for tables of data."""

import html.parser
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import absum_jax
from absum_jax.html import table

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(40, 4, 6, 1)).astype(np.float32)
Y = RNG.integers(0, 3, 40)
WEIGHTS = RNG.normal(size=(2, 24, 3)).astype(np.float32)


def linear(weights, x):
    return (x - 0.5).reshape(len(x), -1) @ weights


MODEL = Partial(linear, WEIGHTS[0])


def fourier(model=MODEL, **options):
    return absum_jax.single_fourier_accuracy(model, X, Y, 0.1, **options)


def filtered(model=MODEL, **options):
    return absum_jax.low_pass_accuracy(model, X, Y, [1.0, 2.0, 3.0], **options)


def is_plain(rows):
    return (
        all(type(value) in (int, float) for row in rows for value in row.values())
        and len({tuple(row) for row in rows}) == 1
    )


class Cells(html.parser.HTMLParser):
    """The texts of a table's cells, row by row."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_text_in_a_table_is_escaped():
    texts = ["<b>", "a & b", '"', "</td>"]
    shown = table(texts, [texts[::-1]], ["1 < 2"])
    assert Cells(shown).rows == [texts, texts[::-1]]
    assert "<b>" not in shown
    assert "<p>1 &lt; 2</p>" in shown
    with pytest.raises(ValueError, match="shorter"):
        table(texts, [["a"]])


def test_rows_of_a_grid():
    result = fourier()
    assert is_plain(result.rows)
    assert len(result.rows) == 24
    for row in result.rows:
        entry = row["l"], row["m"]
        assert row["accuracy"] == float(result.accuracy[entry])
        assert row["nan_logits"] == 0
    assert {(row["l"], row["m"]) for row in result.rows} == {*np.ndindex(4, 6)}


def test_rows_of_a_list():
    result = fourier(frequencies=[(3, 5), (0, 1)], top_k=(1, 2))
    assert is_plain(result.rows)
    accuracy = np.array([row["accuracy"] for row in result.rows]).reshape(2, 2)
    np.testing.assert_array_equal(accuracy, result.accuracy)
    assert [(row["axis_0"], row["frequency"]) for row in result.rows] == [
        (0, 0), (0, 1), (1, 0), (1, 1),
    ]  # fmt: skip
    lacking = absum_jax.summarize_frequencies(np.ones(2), np.ones((2, 2), int))
    assert lacking.rows == [{"frequency": i, "accuracy": 1.0} for i in range(2)]


def sometimes(weights, x):
    logits = linear(weights, x)
    return jnp.where(logits[:, :1] > weights[0, 0], jnp.nan, logits)


def at_two(model, **options):
    return fourier(model, frequencies=[(0, 1), (2, 3)], **options)


def at_one_radius(model, **options):
    return absum_jax.low_pass_accuracy(model, X, Y, 1.0, **options)


@pytest.mark.parametrize(
    ("function", "top_k"),
    [
        *itertools.product((at_two, filtered), (1, (1, 2), (1, 2, 3))),
        (at_one_radius, 1),
        (at_one_radius, (1, 2, 3)),
    ],
)
def test_rows_of_several_models_keep_nan_logits_beside_their_model(function, top_k):
    def of(weights):
        return function(Partial(sometimes, weights), top_k=top_k)

    results = jax.vmap(of)(WEIGHTS)
    for model, weights in enumerate(WEIGHTS):
        alone = of(weights)
        assert max(row["nan_logits"] for row in alone.rows) > 0
        rows = np.array(results.rows).reshape(len(WEIGHTS), -1)
        of_model = rows[model].tolist()
        for column in ("accuracy", "nan_logits"):
            assert [row[column] for row in of_model] == [
                row[column] for row in alone.rows
            ]


def test_rows_of_strengths():
    result = filtered()
    assert is_plain(result.rows)
    assert [row["strength"] for row in result.rows] == [1, 2, 3]
    assert [row["accuracy"] for row in result.rows] == result.accuracy.tolist()
    both = filtered(top_k=(1, 2))
    assert [(row["axis_0"], row["strength"]) for row in both.rows] == [
        (k, strength) for k in range(2) for strength in (1, 2, 3)
    ]
    assert [row["accuracy"] for row in both.rows] == both.accuracy.ravel().tolist()
    scalar = absum_jax.low_pass_accuracy(MODEL, X, Y, 1.0)
    assert scalar.rows == result.rows[:1]


def test_lines_have_no_arrays():
    result = fourier()
    l, m = result.worst.tolist()
    assert repr(result) == (
        f"SingleFourierAccuracy(shape=[4, 6], mean={result.mean:.4g}, "
        f"min={result.min:.4g}, max={result.max:.4g}, worst=[{l}, {m}])"
    )
    strengths = filtered()
    accuracies = ", ".join(f"{a:.4g}" for a in strengths.accuracy.tolist())
    assert repr(strengths) == (
        f"AttackAccuracy(strength=[1, 2, 3], accuracy=[{accuracies}], "
        "nan_logits=[0, 0, 0])"
    )
    assert "\n" not in repr(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), strengths))


def test_tables_of_html():
    result = fourier()
    header, cells = Cells(result._repr_html_()).rows
    assert header == ["mean", "min", "max", "worst"]
    assert cells[:3] == [f"{n:.4g}" for n in (result.mean, result.min, result.max)]
    assert cells[3] == str(result.worst.tolist())
    several = Cells(fourier(top_k=(1, 2))._repr_html_()).rows
    assert [row[0] for row in several] == ["axis_0", "0", "1"]
    assert several[1][1:] == cells
    rows = Cells(filtered()._repr_html_()).rows
    assert rows[0] == ["strength", "accuracy", "nan_logits"]
    assert [row[1] for row in rows[1:]] == [
        f"{a:.4g}" for a in filtered().accuracy.tolist()
    ]


def test_a_report_shows_the_same_numbers_everywhere():
    report = absum_jax.robustness_report(
        MODEL, X, Y, key=jax.random.key(0), single_fourier_eps=0.1, eps=0.1,
        step_size=0.1, steps=1, frequencies=[(0, 1)], substitutes={"<i>|": MODEL},
    )  # fmt: skip
    shown = report._repr_html_()
    assert "<i>" not in shown
    rows = Cells(shown).rows
    assert rows[0] == ["attack", "strength", "accuracy (%)", "95 % interval"]
    assert [row[0] for row in rows[1:]] == [row.attack for row in report.rows]
    plain = [line.strip("| ").split(" | ") for line in str(report).splitlines()]
    for row, line in zip(rows[1:], plain[2:], strict=False):
        assert row[2:] == [cell.strip() for cell in line[-2:]]
    assert "<p>40 images. The single frequency is the worst of 1.</p>" in shown


@pytest.mark.parametrize("result", [fourier(), filtered()], ids=lambda r: type(r))
def test_results_remain_pytrees_of_anything(result):
    kind = type(result)
    leaves, structure = jax.tree.flatten(result)
    assert isinstance(jax.tree.unflatten(structure, leaves), kind)
    assert result == tuple(result)
    for other in (
        jax.eval_shape(lambda: result),
        jax.tree.map(lambda _: None, result),
        jax.tree.map(lambda _: "PartitionSpec", result),
    ):
        assert repr(other).startswith(f"{kind.__name__}(")
        assert all(f"{field}=" in repr(other) for field in kind._fields)
        assert other._repr_html_() is None

    @jax.jit
    def traced(result):
        assert "Traced" in repr(result) or "JitTracer" in repr(result)
        assert result._repr_html_() is None
        return result

    assert repr(traced(result)) == repr(result)
    # What `in_axes` and comparisons take.
    assert repr(jax.tree.map(lambda _: 0, result)).startswith(kind.__name__)


def test_tables_of_data_accept_rows():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    result = fourier()
    frame = pandas.DataFrame(result.rows).pivot(index="l", columns="m")["accuracy"]
    np.testing.assert_allclose(frame, result.accuracy)
    assert list(pandas.DataFrame(filtered().rows).strength) == [1, 2, 3]
    rows = [absum_jax.ReportRow("clean", None, 0.9, 0.8, 1.0, 0.0)]
    assert list(pandas.DataFrame(rows).columns) == [*absum_jax.ReportRow._fields]
