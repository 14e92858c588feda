"""The benchmark of AutoAttack: its rows, the committed ones, and its closed form."""

import sys
import types

import jax
import numpy as np
import pytest
from scipy import optimize

from benchmarks import __main__ as command
from benchmarks import auto_attack
from benchmarks.auto_attack import PGD, WHOLE, Point
from benchmarks.torch_peer import Robust
from experiments.jobs import files
from experiments.models import build

_POINT = Point("clean", 0.1, 200, "apgd-t")


def _rows(path):
    return [auto_attack.Row(**row) for row in files.read_json_lines(path)]


def test_rows_are_computed_once(tmp_path):
    path, computed = tmp_path / "rows.jsonl", []

    def attack(point):
        computed.append(point)
        return Robust(100 + len(computed), 20, 10)

    def stored(point, package="a 1", weights="f00"):
        return auto_attack.row_of(path, point, package, weights, attack)

    first = stored(_POINT)
    assert first[:-1] == ("clean", 0.1, 200, "apgd-t", "a 1", "f00", 101, 20, 10)
    assert stored(_POINT) == first
    others = [stored(_POINT, "a 2"), stored(_POINT, weights="f01")]
    others += [
        stored(_POINT._replace(**{name: value}))
        for name, value in (
            ("model", "Absum"),
            ("eps", 0.15),
            ("images", 1000),
            ("component", "square"),
        )
    ]
    assert [row.robust for row in others] == list(range(102, 108))
    assert len(computed) == 7
    assert _rows(path) == [first, *others]


def test_command_prints_columns(monkeypatch, capsys):
    def row(robust, seconds):
        return auto_attack.Row(*_POINT, "a 1", "f00", robust, 9000, 45, seconds)

    rows = [
        {
            "benchmark": "accuracy",
            "case": case,
            "columns": auto_attack.columns(row(110, 3.0), peer),
        }
        for case, peer in (("apgd-t", row(109, 1234.0)), ("pgd", None))
    ]
    monkeypatch.setattr(command, "BENCHMARKS", {"auto_attack": (lambda: rows,)})
    monkeypatch.setattr(sys, "argv", ["benchmarks", "auto_attack"])
    command.main()
    *_, header, _, first, second = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:3]] == ["accuracy", "%"]
    assert [cell.strip() for cell in first.split("|")[1:-1]] == [
        "apgd-t", "55.0 / 54.5", "+0.5", "9,000 / 9,000", "45 / 45", "3 / 1,234",
    ]  # fmt: skip
    assert [cell.strip() for cell in second.split("|")[1:4]] == ["pgd", "55.0", ""]


def test_closed_form_of_a_linear_model():
    rng = np.random.default_rng(0)
    x, y = rng.random((30, 2, 2, 1)), rng.integers(0, 3, 30)
    kernel, bias = rng.normal(size=(4, 3)), rng.normal(size=3)

    def is_broken(image, label, eps):
        """Whether a linear program finds a change to another class."""
        bounds = [(max(v - eps, 0), min(v + eps, 1)) for v in image.ravel()]
        return any(
            -optimize.linprog(kernel[:, label] - kernel[:, t], bounds=bounds).fun
            > bias[label] - bias[t]
            for t in {0, 1, 2} - {label}
        )

    accuracies = []
    for eps in (0.0, 0.1, 0.3):
        broken = [is_broken(*pair, eps) for pair in zip(x, y, strict=True)]
        accuracies.append(auto_attack.closed_form(kernel, bias, x, y, eps))
        assert accuracies[-1] == pytest.approx(1 - np.mean(broken))
    assert accuracies[0] > accuracies[-1] > 0


def _committed(package):
    """The committed rows of a package by their points, with which weights."""
    return {
        (Point(*row[:4]), row.weights): row
        for row in _rows(auto_attack.ROWS)
        if row.package.startswith(package)
    }


def _percent(row):
    return 100 * row.robust / row.images


def test_committed_rows_agree_with_the_reference():
    ours, theirs = _committed("absum_jax"), _committed("pyautoattack")
    assert ours.keys() & theirs.keys()
    for key in ours.keys() & theirs.keys():
        # Other windows of Square break other images, of which there are few.
        is_few = key[0].component == "square" and key[0].images == 200
        points = 3.0 if is_few else {WHOLE: 0.5}.get(key[0].component, 1.0)
        assert abs(_percent(ours[key]) - _percent(theirs[key])) <= points, key


def test_committed_rows_are_below_those_of_pgd():
    rows = _committed("absum_jax")
    whole = [key for key in rows if key[0].component == WHOLE]
    assert whole
    for point, weights in whole:
        pgd = rows[point._replace(component=PGD), weights]
        assert rows[point, weights].robust <= pgd.robust + 1, point


@pytest.mark.slow
def test_no_change_leaves_clean_accuracy(monkeypatch):
    mean, std = (0.2,), (0.5,)
    classifier = build("small_cnn", mean, std)
    variables = jax.jit(classifier.init)(jax.random.key(0))
    model = auto_attack._Model(classifier, variables)
    rng = np.random.default_rng(0)
    x = rng.random((6, 28, 28, 1), np.float32)
    y = np.array(model.logits_fn(x).argmax(axis=-1))
    y[:2] = (y[:2] + 1) % 10  # misclassified
    monkeypatch.setattr(auto_attack, "_model", lambda name: model)
    monkeypatch.setattr(auto_attack, "_test_images", lambda count: (x, y))
    monkeypatch.setattr(auto_attack, "_QUERIES", 3)
    point = Point("clean", 0.0, 6, "square")
    assert auto_attack._ours(point).images == 4

    pytest.importorskip(
        "pyautoattack", reason="pyautoattack is not installed (the extra bench)"
    )
    data = types.SimpleNamespace(mean=mean, std=std)
    monkeypatch.setattr(auto_attack, "_data", lambda: data)
    assert auto_attack._reference(point).images == 4


def test_passes_of_the_reference_are_counted():
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed (the extra bench)"
    )
    from benchmarks.torch_networks import Counted

    model = Counted(torch.nn.Flatten(), (0.25, 0.5), (0.5, 2.0))
    x = torch.full((3, 2, 1, 1), 0.5, requires_grad=True)
    logits = model(x)
    assert logits.tolist() == [[0.5, 0.0]] * 3
    torch.autograd.grad(logits.sum(), x)
    with torch.inference_mode():
        model(x[:2])
    assert (model.forward_passes, model.backward_passes) == (5, 3)
