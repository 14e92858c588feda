"""A report of a model's robustness against all attacks, in one call."""

from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import numpy as np

from absum_jax import _logits
from absum_jax import _validation as validation
from absum_jax.attacks.gradient import check_aim, check_budget, check_not_futile
from absum_jax.attacks.single_fourier import SCALES
from absum_jax.evaluation.auto_attack import COMPONENTS, attacked, check_targets
from absum_jax.evaluation.auto_attack_result import (
    QUERIES,
    STEPS,
    TITLES,
    AutoAttackResult,
)
from absum_jax.evaluation.clean import BATCH_SIZE, check_evaluation
from absum_jax.evaluation.counting import AttackAccuracy
from absum_jax.evaluation.frequency import filtered_accuracy
from absum_jax.evaluation.gradient import pgd_fractions
from absum_jax.evaluation.progress import Progress, check_progress, evaluated
from absum_jax.evaluation.robustness import ReportRow, RobustnessReport
from absum_jax.evaluation.single_fourier import (
    check_frequencies,
    single_fourier_accuracy,
)
from absum_jax.intervals import wilson_interval


def _row(
    attack: str,
    measure: str,
    strength: Any,
    accuracy: Any,
    nan_logits: Any,
    images: int,
) -> ReportRow:
    low, high = wilson_interval(float(accuracy), images)
    numbers = float(strength), float(accuracy), low, high, float(nan_logits)
    return ReportRow(attack, *numbers, measure)


def _rows(
    attack: str, measure: str, result: AttackAccuracy, images: int
) -> list[ReportRow]:
    strengths, accuracies, nan_logits = (np.ravel(f) for f in result[:3])
    return [
        _row(attack, measure, strength, accuracy, undefined, images)
        for strength, accuracy, undefined in zip(
            strengths, accuracies, nan_logits, strict=True
        )
    ]


def _auto_attack_rows(result: AutoAttackResult) -> list[ReportRow]:
    """Returns a row for what is left after each attack, and one for all of them.

    It is not known in which of them logits were NaN: `problems` counts these images.
    """
    rows = [
        ReportRow(
            f"AutoAttack: {row['attack']}", row["eps"], row["accuracy"], row["low"],
            row["high"], None, "eps",
        )
        for row in result.rows
        if row["attack"] in TITLES
    ]  # fmt: skip
    last = [row for row in rows if row.attack == f"AutoAttack: {TITLES[-1]}"]
    return rows + [row._replace(attack="AutoAttack") for row in last]


def robustness_report(
    logits_fn: _logits.LogitsFn,
    x: chex.Array,
    y: chex.Array,
    *,
    key: chex.PRNGKey,
    single_fourier_eps: float,
    eps: float | Sequence[float],
    step_size: float,
    steps: int,
    init_radius: float | None = None,
    restarts: int = 1,
    radii: Sequence[float] | None = None,
    substitutes: Mapping[str, _logits.LogitsFn] | None = None,
    auto_attack: bool = False,
    frequencies: chex.Array | None = None,
    batch_size: int = BATCH_SIZE,
    top_k: int = 1,
    scale: str = "linf",
    bounds: tuple[float, float] = (0.0, 1.0),
    progress: Progress | None = None,
) -> RobustnessReport:
    """Runs all attacks of the paper on a model.

    The report contains the clean accuracy; the mean over frequencies and the worst
    frequency of the Single Fourier Attack; PGD, on the model and transferred from other
    models; low- and high-pass filters; and AutoAttack on request.

    Args:
      logits_fn: a callable from images to logits, as in :func:`accuracy`.
      x: images (N, height, width, channels), floating-point, within the bounds.
      y: integer labels (N,).
      key: random key of PGD's starts and of AutoAttack, from `jax.random.key`.
      single_fourier_eps: magnitude of :func:`single_fourier_accuracy`, in units of the
        pixels: in the paper 80/255 for 28 x 28 images and 10/255 for larger ones.
      eps: radius or radii of :func:`pgd_accuracy`, in units of the pixels.
      step_size: step size of PGD, in units of the pixels.
      steps: number of PGD steps.
      init_radius: radius of PGD's random start; None is eps.
      restarts: number of PGD's random starts. With several, attacking an image of the
        model itself stops once it is misclassified, if `top_k` is 1.
      radii: radii of :func:`low_pass_accuracy` and :func:`high_pass_accuracy`, in
        cycles per image; None is a quarter of the width, as in the paper.
      substitutes: other models by name, whose adversarial examples the model is
        evaluated on; each is attacked with the eps and steps of PGD.
      auto_attack: whether to run :func:`auto_attack` with each eps. The report then
        has a row for the accuracy left after each of its attacks, and one for all of
        them; rows of PGD show by how much PGD overestimates robust accuracy. On an
        image that stays robust, it takes about a hundred times as long as 40 steps of
        PGD.
      frequencies: integer pairs (F, 2) of (l, m); None is the whole grid.
      batch_size: the maximum number of images in one pass, as in :func:`accuracy`.
      top_k: how many of the largest logits may contain the label; 1 with `auto_attack`.
      scale: what `single_fourier_eps` measures.
      bounds: the range of pixel values.
      progress: shows progress, such as `tqdm.tqdm`: a function from a sequence, here of
        names of attacks, to an iterable of its items; None shows nothing.

    Returns:
      The :class:`RobustnessReport`.

    Raises:
      ValueError: for the reasons of the functions above.

    Example:
      >>> import absum_jax, jax, jax.numpy as jnp
      >>> x = jnp.linspace(0, 1, 100).reshape(100, 1, 1, 1) * jnp.ones((4, 4, 1))
      >>> y = (x[:, 0, 0, 0] > 0.5).astype(int)
      >>> mean = lambda x: x.mean(axis=(1, 2, 3))
      >>> brighter = lambda x: jnp.stack([0.5 - mean(x), mean(x) - 0.5], axis=-1)
      >>> report = absum_jax.robustness_report(
      ...     brighter, x, y, key=jax.random.key(0), single_fourier_eps=0.2,
      ...     eps=[0.1, 0.2], step_size=0.05, steps=10,
      ... )
      >>> print(report)
      | attack                | strength | accuracy (%) |   95 % interval |
      | --------------------- | -------: | -----------: | --------------: |
      | clean                 |          |       100.00 | 96.30 to 100.00 |
      | single Fourier, mean  |      0.2 |        98.75 |  94.15 to 99.74 |
      | single Fourier (0, 0) |      0.2 |        80.00 |  71.12 to 86.66 |
      | PGD                   |      0.1 |        80.00 |  71.12 to 86.66 |
      | PGD                   |      0.2 |        60.00 |  50.20 to 69.06 |
      | low-pass              |        1 |       100.00 | 96.30 to 100.00 |
      | high-pass             |        1 |        50.00 |  40.38 to 59.62 |
      <BLANKLINE>
      100 images. The single frequency is the worst of 16.

    References:
      Kanai et al., `Absum <https://arxiv.org/abs/1909.08830>`_, 2020, Tables 1 to 4
    """
    # Check all arguments first, by their names here: the attacks may take minutes.
    check_progress(progress)
    bounds = validation.check_bounds(bounds)
    top_k = validation.check_positive_int("top_k", top_k)
    single_fourier_eps = validation.check_nonnegative(
        "single_fourier_eps", single_fourier_eps, finite=True
    )
    validation.check_keys(key)
    validation.check_bool("auto_attack", auto_attack)
    validation.check_choice("scale", scale, SCALES)
    aim = check_aim(None, False, restarts)
    stopping = aim._replace(early_stop=aim.restarts > 1 and top_k == 1)
    budget = check_budget(eps, step_size, steps, init_radius)
    x, y = check_evaluation(logits_fn, x, y, batch_size, top_k, bounds)
    if auto_attack:
        check_targets(logits_fn, x)
        if top_k != 1:
            raise ValueError(
                f"`top_k` must be 1 with `auto_attack`, which breaks the first "
                f"prediction, got {top_k}."
            )
    if frequencies is not None:
        frequencies = check_frequencies(frequencies, x.shape[1:3])
    images, width = x.shape[0], x.shape[2]
    radius = validation.check_nonnegative_list(
        "radii", width / 4 if radii is None else radii
    )
    all_radii = [float(each) for each in np.ravel(radius)]
    attackers: dict[str, tuple[str, _logits.LogitsFn | None]] = {
        "PGD": ("logits_fn", None)
    }
    if not isinstance(substitutes, Mapping | None) or not all(
        isinstance(name, str) for name in substitutes or ()
    ):
        raise ValueError(
            f"`substitutes` must map names to models, got {substitutes!r}."
        )
    for name, substitute in (substitutes or {}).items():
        argument = f"substitutes[{name!r}]"
        check_evaluation(substitute, x, y, batch_size, 1, name=argument)
        attackers[f"PGD on {name}"] = argument, substitute
    evaluation: dict[str, Any] = {"batch_size": batch_size, "top_k": top_k}

    names = ["clean", *["low-pass"] * len(all_radii), *["high-pass"] * len(all_radii)]
    inside = np.array([name != "high-pass" for name in names])
    filters, single_fourier = "clean and filters", "single Fourier"
    automatic = ["AutoAttack"] if auto_attack else []

    def evaluate(attack: str) -> Any:
        if attack == filters:
            # One program: a filter that passes all frequencies changes nothing.
            each = [np.inf, *all_radii, *all_radii]
            return filtered_accuracy(logits_fn, x, y, each, inside, **evaluation)
        if attack == single_fourier:
            return single_fourier_accuracy(
                logits_fn, x, y, single_fourier_eps,
                frequencies=frequencies, scale=scale, bounds=bounds, **evaluation,
            )  # fmt: skip
        if attack in automatic:
            return attacked(
                logits_fn, x, y, key=key, eps=eps, bounds=bounds, batch_size=batch_size,
                components=tuple(COMPONENTS), steps=STEPS, queries=QUERIES,
            )  # fmt: skip
        argument, attacker = attackers[attack]
        # Early stopping looks at the attacked model's first prediction.
        own = stopping if attacker is None else aim
        fractions, record = pgd_fractions(
            (logits_fn, attacker), x, y, key, budget, bounds, aim=own, **evaluation
        )
        check_not_futile(record, images, aim, argument, stacklevel=5)
        return AttackAccuracy(budget.eps, *fractions)

    filtered, fourier, *others = evaluated(
        [filters, single_fourier, *attackers, *automatic], evaluate, progress
    )
    of_attackers, of_auto_attack = others[: len(attackers)], others[len(attackers) :]
    clean, *filter_rows = (
        row._replace(attack=name)
        for name, row in zip(names, _rows("", "radius", filtered, images), strict=True)
    )
    rows = [clean._replace(strength=None, measure=None)]
    undefined = np.asarray(fourier.nan_logits).ravel()
    worst = np.asarray(fourier.accuracy).argmin()
    l, m = (int(index) for index in fourier.worst)
    for attack, accuracy, nan_logits in (
        ("single Fourier, mean", fourier.mean, undefined.mean()),
        (f"single Fourier ({l}, {m})", fourier.min, undefined[worst]),
    ):
        rows.append(
            _row(attack, "eps", single_fourier_eps, accuracy, nan_logits, images)
        )
    for attack, result in zip(attackers, of_attackers, strict=True):
        rows += _rows(attack, "eps", result, images)
    for result in of_auto_attack:
        automatic_rows = _auto_attack_rows(result)
        left = {r.strength: r.accuracy for r in automatic_rows}
        rows = [
            row._replace(overestimate=row.accuracy - left[row.strength])
            if row.attack == "PGD"
            else row
            for row in rows
        ]
        rows += automatic_rows
    rows += filter_rows
    conditions = {
        "single_fourier_eps": float(single_fourier_eps),
        "frequencies": fourier.accuracy.size,
        "scale": scale,
        "pgd_eps": np.asarray(eps).tolist(),
        "pgd_step_size": np.asarray(step_size).tolist(),
        "pgd_steps": int(steps),
        "pgd_init_radius": np.asarray(init_radius).tolist(),
        "pgd_restarts": aim.restarts,
        "radii": all_radii,
        "top_k": top_k,
        "bounds": [float(bound) for bound in bounds],
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    for result in of_auto_attack:
        conditions["auto_attack_problems"] = result.problems.sentences()
    grid = np.asarray(fourier.accuracy) if frequencies is None else None
    return RobustnessReport(images, tuple(rows), grid, conditions)
