"""Tables of what AutoAttack did to images, beside PGD."""

from collections.abc import Sequence

import numpy as np

from absum_jax.evaluation.auto_attack_result import TITLES
from experiments.methods import METHODS
from experiments.reporting import columns
from experiments.reporting.evaluated import AutoModel
from experiments.reporting.selection import by_setting


def overestimates(
    models: Sequence[AutoModel], known: np.ndarray | None, eps: Sequence[float]
) -> list[str]:
    """Makes a table of accuracies under PGD less those under AutoAttack, in points.

    Known are the accuracies (models, eps) under PGD; None says that there are none.
    """
    if known is None:
        return [
            "PGD was not evaluated on all of these images: --attack pgd auto compares."
        ]
    under_pgd = dict(zip((model.run for model in models), known, strict=True))
    cells = []
    for setting, group in by_setting(models).items():
        more = [under_pgd[model.run] - model.test.accuracies for model in group]
        # Without negative zeros, which rounding to float32 leaves.
        mean = np.round(100 * np.mean(more, axis=0), 2) + 0.0
        cells.append([METHODS[setting.method].label, *(f"{x:+.2f}" for x in mean)])
    return [
        "By how many points PGD overestimates the accuracy on the same images, mean "
        "over seeds:",
        "",
        *columns.aligned(["method", *(f"eps = {e:.4g}" for e in eps)], cells),
    ]


def broken(models: Sequence[AutoModel], images: int) -> list[str]:
    """Makes a table of what broke the images of each method, and of the passes."""
    cells = []
    for setting, group in by_setting(models).items():
        found = [model.test.attacked for model in group]
        left, *others = np.mean([each.images for each in found], axis=(0, 1)) / images
        passes = np.array([[each.forward, each.backward] for each in found]) / images
        forward, backward = passes.sum(axis=(2, 3)).mean(axis=0)
        cells.append(
            [
                METHODS[setting.method].label,
                *(f"{100 * share:.2f}" for share in (*others, left)),
                *(f"{number:,.0f}" for number in (forward, backward)),
            ]
        )
    header = ["method", "misclassified", *TITLES, "not broken", "forward", "backward"]
    return [
        "Images, in percent, that are misclassified, that each attack broke after the "
        "ones before it, and that are left, mean over eps and seeds; and forward and "
        "backward passes for each image, with all eps together:",
        "",
        *columns.aligned(header, cells),
    ]
