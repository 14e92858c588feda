"""Tables of what AutoAttack did to images, by hand."""

import numpy as np
import pytest
from markdown_tables import cells

from experiments.config import Setting
from experiments.evaluation.auto_attack import AutoAttacked
from experiments.evaluation.clean import Clean
from experiments.reporting import auto_attack
from experiments.reporting.evaluated import Auto, AutoModel
from experiments.training.runs import Run


@pytest.fixture
def models(make_config, tmp_path):
    """Two seeds, ten images and two eps."""
    images = np.array([[6, 1, 1, 2, 0, 0], [2, 1, 3, 2, 1, 1]])
    forward, backward = np.arange(8).reshape(2, 4), np.arange(8)[::-1].reshape(2, 4)
    models = []
    for seed in (0, 1):
        run = Run(tmp_path, make_config(Setting("absum", 0.1), seed))
        found = AutoAttacked(
            images + seed * np.array([-2, 0, 0, 0, 0, 2]), 10 * forward,
            (1 + seed) * 10 * backward, np.zeros(5, int),
        )  # fmt: skip
        models.append(AutoModel(run, Auto(Clean(0.9, 10, 0.0), found)))
    return models


def test_what_broke_the_images(models):
    header, _, row = cells(auto_attack.broken(models, 10))
    assert header[1:] == [
        "misclassified", "APGD-CE", "APGD-T", "FAB-T", "Square", "not broken",
        "forward", "backward",
    ]  # fmt: skip
    # Means over two eps and two seeds; sums of 28 and, on average, 42 passes.
    assert row == [
        "Absum", "10.00", "20.00", "20.00", "5.00", "15.00", "30.00", "28", "42",
    ]  # fmt: skip


def test_by_how_much_pgd_overestimates(models):
    known = np.array([[0.7, 0.25], [0.5, 0.05]])
    header, _, row = cells(auto_attack.overestimates(models, known, [0.1, 0.2]))
    assert header == ["method", "eps = 0.1", "eps = 0.2"]
    assert row == ["Absum", "+10.00", "+5.00"]
