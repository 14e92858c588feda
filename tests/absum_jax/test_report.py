"""The robustness report: the numbers of the functions behind it, and its forms."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.stats import binomtest

import absum_jax

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(40, 6, 8, 1)).astype(np.float32)
KEY = jax.random.key(3)
ATTACK = {"eps": [0.02, 0.1], "step_size": 0.02, "steps": 6, "init_radius": 0.01}


def linear(weights, x):
    return (x - 0.5).reshape(len(x), -1) @ weights


MODEL, OTHER = (
    Partial(linear, RNG.normal(size=(48, 3)).astype(np.float32)) for _ in range(2)
)
Y = np.asarray(MODEL(X).argmax(-1)).copy()
Y[:4] = (Y[:4] + 1) % 3


@functools.cache
def whole_report():
    return report(substitutes={"other": OTHER})


def report(model=MODEL, **changes):
    options = {
        "key": KEY,
        "single_fourier_eps": 0.1,
        "radii": [1, 3],
        "batch_size": 13,
        **ATTACK,
    }
    return absum_jax.robustness_report(model, X, Y, **(options | changes))


def stop(names):
    """Progress of what must not begin."""
    raise AssertionError(f"{names} began before all arguments were checked")


def test_rows_are_the_librarys_numbers():
    found = whole_report()
    pgd = {"key": KEY, **ATTACK}
    fourier = absum_jax.single_fourier_accuracy(MODEL, X, Y, 0.1)
    l, m = fourier.worst.tolist()
    expected = [
        ("clean", None, absum_jax.accuracy(MODEL, X, Y)),
        ("single Fourier, mean", 0.1, fourier.mean),
        (f"single Fourier ({l}, {m})", 0.1, fourier.min),
    ]
    for attack, result in (
        ("PGD", absum_jax.pgd_accuracy(MODEL, X, Y, **pgd)),
        ("PGD on other", absum_jax.pgd_accuracy(MODEL, X, Y, substitute=OTHER, **pgd)),
        ("low-pass", absum_jax.low_pass_accuracy(MODEL, X, Y, [1, 3])),
        ("high-pass", absum_jax.high_pass_accuracy(MODEL, X, Y, [1, 3])),
    ):
        for strength, accuracy in zip(result.strength, result.accuracy, strict=True):
            expected.append((attack, float(strength), accuracy))
    assert [(row.attack, row.strength) for row in found.rows] == [
        (attack, strength) for attack, strength, _ in expected
    ]
    np.testing.assert_allclose(
        [row.accuracy for row in found.rows], [float(e[2]) for e in expected], atol=1e-6
    )
    np.testing.assert_allclose(found.grid, fourier.accuracy, atol=1e-6)
    assert found.rows[0].accuracy == pytest.approx(0.9)
    assert all(row.nan_logits == 0 for row in found.rows)


def test_intervals_are_wilsons():
    for row in whole_report().rows:
        if (successes := row.accuracy * 40) == round(successes):
            interval = binomtest(round(successes), 40).proportion_ci(method="wilson")
            assert (row.low, row.high) == pytest.approx((interval.low, interval.high),
                                                        abs=1e-4)  # fmt: skip


def test_the_default_radius_is_a_quarter_of_the_width():
    assert report(radii=None).rows[-1].strength == 2.0


def test_nan_logits_are_told_and_count_as_wrong():
    def sometimes(x):
        broken = (jnp.arange(len(x)) == 0) & (x.mean() > 0.1)
        return jnp.where(broken[:, None], jnp.nan, MODEL(x))

    found = report(sometimes, batch_size=40)
    clean = found.rows[0]
    assert clean.nan_logits == pytest.approx(1 / 40)
    assert "NaN logits, counted as wrong: 2.50 % of the images (clean)." in str(found)
    pgd = [row for row in found.rows if row.attack == "PGD"]
    assert all(row.nan_logits == pytest.approx(1 / 40) for row in pgd)
    assert "NaN" not in str(whole_report())


def test_nan_logits_stand_beside_the_worst_frequency():
    def failing(x):
        """Fails where the first row is far brighter than the fourth."""
        far = (x[:, 0] - x[:, 3]).mean((1, 2)) > 0.1
        return jnp.where(far[:, None], jnp.nan, MODEL(x))

    fourier = absum_jax.single_fourier_accuracy(failing, X, Y, 0.1)
    of_worst = fourier.nan_logits[tuple(fourier.worst)]
    mean, worst = (row for row in report(failing).rows if "Fourier" in row.attack)
    assert mean.nan_logits == pytest.approx(fourier.nan_logits.mean())
    assert worst.nan_logits == pytest.approx(of_worst)
    assert of_worst > fourier.nan_logits.mean() + 0.1


def test_forms():
    found = whole_report()
    text = str(found)
    assert text.startswith("| attack ")
    assert min(found.rows, key=lambda row: row.accuracy).attack == "PGD"
    assert repr(found) == "RobustnessReport(40 images, clean: 90.00 %, PGD 0.1: 0.00 %)"
    assert "40 images. The single frequency is the worst of 48." in text
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1
    document = json.loads(found.to_json())
    assert document == found.as_dict()
    assert document["rows"][0]["attack"] == "clean"
    assert np.shape(document["grid"]) == (6, 8)
    assert document["conditions"]["pgd_steps"] == 6


def test_numbers_that_are_not_finite_are_text_in_json():
    given = {"radii": [1.0, np.inf], "rate": np.nan}
    found = dataclasses.replace(whole_report(), conditions=given)
    expected = {"radii": [1.0, "inf"], "rate": "nan"}
    assert json.loads(found.to_json())["conditions"] == expected


def test_pictures():
    found = whole_report()
    heatmap, pgd, filters = axes = found.plot()
    assert isinstance(axes, np.ndarray)
    # The colour bar comes last.
    assert heatmap.figure.axes[:3] == list(axes)
    np.testing.assert_allclose(
        np.fft.ifftshift(heatmap.images[0].get_array()), 100 * found.grid
    )
    assert heatmap.images[0].get_clim() == (0, 100)
    assert [t.get_text() for t in pgd.get_legend().get_texts()] == [
        "clean", "PGD", "PGD on other",
    ]  # fmt: skip
    line = pgd.containers[0].lines[0]
    np.testing.assert_allclose(np.float64(line.get_xdata()), [0.02, 0.1], rtol=1e-6)
    accuracies = [row.accuracy for row in found.rows if row.attack == "PGD"]
    np.testing.assert_allclose(line.get_ydata(), 100 * np.array(accuracies))
    assert {ax.get_ylabel() for ax in (pgd, filters)} == {"accuracy (%)"}
    assert len(filters.containers) == 2
    some = report(frequencies=np.array([[0, 1], [2, 2]]))
    assert some.grid is None
    assert len(some.plot()) == 2


def test_attacks_of_one_strength_stand_side_by_side():
    found = report(
        eps=0.1, substitutes={"other": OTHER}, radii=[2.0], frequencies=[[0, 1]]
    )
    for ax, label in zip(
        found.plot(), ("eps = 0.1", "radius = 2 cycles per image"), strict=True
    ):
        points = [container.lines[0] for container in ax.containers]
        assert [list(point.get_xdata()) for point in points] == [[0], [1]]
        assert ax.get_xlabel().strip() == label
        assert not len(ax.get_xticks())
        assert ax.get_xlim() == (-1, 2)


def test_attacks_differ_in_dash_marker_and_color():
    found = report(
        substitutes=dict.fromkeys("abcde", OTHER), frequencies=np.array([[0, 1]])
    )
    ax = found.plot()[0]
    lines = [container.lines[0] for container in ax.containers]
    assert len(lines) == 6
    for style in ("get_marker", "get_color"):
        assert len({getattr(line, style)() for line in lines}) == 6
    assert len({str(line._dash_pattern) for line in lines}) == 6


def test_legends_lie_above_the_axes():
    axes = report(substitutes={"other": OTHER}).plot()[1:]
    axes[0].figure.draw_without_rendering()
    for ax in axes:
        assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1


def test_panels_show_what_rows_measure():
    name = "single Fourier low-pass PGD"
    found = report(substitutes={name: OTHER}, frequencies=np.array([[0, 1]]))
    assert {row.measure for row in found.rows if name in row.attack} == {"eps"}
    assert found.rows[0].measure is None
    eps, radius = (
        [text.get_text() for text in ax.get_legend().get_texts()] for ax in found.plot()
    )
    assert eps == ["clean", "PGD", f"PGD on {name}"]
    assert radius == ["clean", "low-pass", "high-pass"]


def test_names_of_any_characters():
    names = ["low|pass", "two\nlines", r"$\frac$", "_", "PGD", ""]
    found = report(
        eps=0.1, substitutes=dict.fromkeys(names, OTHER), frequencies=[[0, 1]]
    )
    rows = str(found).splitlines()[2:-2]
    assert len(rows) == len(found.rows)
    for row in rows:
        assert row.replace(r"\|", "").count("|") == 5
    ax, _ = found.plot()
    ax.figure.draw_without_rendering()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["clean", "PGD", *(f"PGD on {name}" for name in names)]


def test_numbers_of_any_type_are_recorded():
    found = report(
        steps=np.int64(2), restarts=np.int8(2), top_k=np.int8(1), batch_size=np.int8(9),
        init_radius=[0.1, np.float32(0.5)], eps=jnp.array([0.25, 0.5]),
        step_size=jnp.bfloat16(0.5), radii=range(2), frequencies=[[0, 1]],
    )  # fmt: skip
    conditions = json.loads(found.to_json())["conditions"]
    assert conditions["pgd_init_radius"] == pytest.approx([0.1, 0.5])
    recorded = [
        conditions[f"pgd_{name}"] for name in ("steps", "restarts", "eps", "step_size")
    ]
    assert recorded == [2, 2, [0.25, 0.5], 0.5]
    assert conditions["radii"] == [0, 1]


def test_restarts_and_lists():
    single = report(eps=0.1)
    assert sum(row.attack == "PGD" for row in single.rows) == 1
    several = report(eps=0.1, restarts=3)
    accuracy = {
        name: next(row.accuracy for row in found.rows if row.attack == "PGD")
        for name, found in (("single", single), ("several", several))
    }
    assert accuracy["several"] <= accuracy["single"]


def threshold(at):
    """A model of two classes, whose first is right for images darker than `at`."""

    def logits(at, x):
        darker = at - x.mean(axis=(1, 2, 3))
        return jnp.stack([darker, -darker, darker + 0.1 - 2 * at], axis=-1)

    return Partial(logits, jnp.float32(at))


@pytest.mark.parametrize("restarts", [1, 2])
def test_restarts_do_not_weaken_transfer(restarts):
    # The attack has to go on beyond the mistake of the substitute.
    found = absum_jax.robustness_report(
        threshold(0.5), np.full((1, 4, 4, 1), 0.3, np.float32), np.zeros(1, int),
        key=KEY, single_fourier_eps=0.1, eps=0.3, step_size=0.1, steps=10,
        init_radius=0.0, restarts=restarts, substitutes={"easy": threshold(0.35)},
    )  # fmt: skip
    [transferred] = [row for row in found.rows if row.attack == "PGD on easy"]
    assert transferred.accuracy == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": []}, "`eps` must be a scalar or a list of at least one"),
        ({"eps": [0.1, -0.1]}, "`eps` must be non-negative"),
        ({"steps": 0}, "`steps` must be an integer of at least 1, got 0"),
        ({"restarts": 0}, "`restarts` must be an integer of at least 1, got 0"),
        ({"radii": []}, "`radii` must be a scalar or a list of at least one"),
        ({"key": 0}, "`key` must be a key"),
        ({"substitutes": {"other": 3}}, r"`substitutes\['other'\]` must be a callable"),
        ({"substitutes": [OTHER]}, "`substitutes` must map names to models"),
        ({"substitutes": {1: OTHER}}, "`substitutes` must map names to models"),
        ({"single_fourier_eps": -1}, "`single_fourier_eps` must be non-negative"),
        ({"top_k": (1, 2)}, "`top_k` must be an integer of at least 1"),
        ({"scale": "l1"}, "`scale` must be one of"),
        ({"frequencies": [[0, 8]]}, "`frequencies` must satisfy 0 <= l < 6, 0 <= m <"),
    ],
)
def test_wrong_input(changes, message):
    with pytest.raises(ValueError, match=message):
        report(**changes, progress=stop)


@pytest.mark.parametrize(
    ("share", "images", "message"),
    [
        (1.1, 5, r"`share` must lie in \[0, 1\], got 1.1"),
        (float("nan"), 5, "`share` must be non-negative, got nan"),
        (0.5, 0, "`images` must be an integer of at least 1"),
    ],
)
def test_wrong_intervals(share, images, message):
    with pytest.raises(ValueError, match=message):
        absum_jax.wilson_interval(share, images)


@pytest.mark.parametrize("z", [float("nan"), -1.0, float("inf"), "1.96"])
def test_wrong_z(z):
    with pytest.raises(ValueError, match="`z` must be"):
        absum_jax.wilson_interval(0.5, 5, z)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("images", [1, 7, 100, 10_000, 10**12])
def test_ends_of_intervals(share, images):
    for z in (0.0, 1.96, 1e6, 1e30):
        low, high = absum_jax.wilson_interval(share, images, z)
        assert 0 <= low <= share <= high <= 1
        assert f"{100 * low:.2f}"[0] != "-"
    assert absum_jax.wilson_interval(share, images, 1e30) == (0, 1)


def test_normalized_log():
    spectrum = np.array([[1e-3, 1.0], [10.0, 0.0]])
    expected = np.array([[0, 3], [4, 0]]) / 4
    np.testing.assert_allclose(absum_jax.normalized_log(spectrum), expected)
    assert not absum_jax.normalized_log(np.zeros((2, 2))).any()
    assert not absum_jax.normalized_log(np.ones((2, 2))).any()
    for wrong in (np.ones(3), -np.ones((2, 2)), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="`spectrum` must"):
            absum_jax.normalized_log(wrong)


def test_power_spectrum_picture_is_not_shifted_again():
    waves = np.cos(2 * np.pi * np.arange(8) * 2 / 8) * np.ones((1, 6, 1))
    spectrum = absum_jax.power_spectrum(jnp.asarray(waves[..., None], jnp.float32))
    [image] = absum_jax.plot_power_spectrum(spectrum).images
    # Frequency (0, 2) lies in the middle row, two columns right of the middle one.
    shown = np.asarray(image.get_array())
    assert shown[3, 4 + 2] == shown[3, 4 - 2] == 1
    assert np.sum(shown > 0.9) == 2


def test_autoattack_needs_classes_and_the_first_prediction():
    with pytest.raises(ValueError, match="`logits_fn` must return at least four"):
        report(auto_attack=True, progress=stop)
    four = Partial(linear, RNG.normal(size=(48, 4)).astype(np.float32))
    with pytest.raises(ValueError, match="`top_k` must be 1 with `auto_attack`"):
        report(four, auto_attack=True, top_k=2, progress=stop)


def test_autoattack_beside_pgd():
    def undefined(weights, x):
        is_first = x[:, :1, 0, 0] == X[0, 0, 0, 0]  # without an attack
        return jnp.where(is_first, jnp.nan, linear(weights, x))

    kernel = np.float32(RNG.normal(size=(48, 4)) / 8)
    model, x = Partial(undefined, kernel), X[:12]
    y = np.asarray(model(x).argmax(-1)).copy()
    y[0] = (y[0] + 1) % 4
    options = {"key": KEY, "eps": [0.02, 0.05]}
    with_all = absum_jax.robustness_report(
        model, x, y, single_fourier_eps=0.1, auto_attack=True,
        step_size=0.001, steps=1, init_radius=0.0, **options,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="NaN logits for 1 images"):
        result = absum_jax.auto_attack(model, x, y, **options)
    rows = [row for row in with_all.rows if row.attack.startswith("AutoAttack")]
    names = ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    expected = [*(f"AutoAttack: {name}" for name in names)] * 2 + ["AutoAttack"] * 2
    assert [row.attack for row in rows] == expected
    left = [r["accuracy"] for r in result.rows if r["attack"] != "clean"]
    assert [row.accuracy for row in rows[:8]] == pytest.approx(left)
    last = [row.accuracy for row in rows[8:]]
    assert last == pytest.approx(result.accuracy.tolist())
    pgd = [row for row in with_all.rows if row.attack == "PGD"]
    assert [row.strength for row in rows[8:]] == [row.strength for row in pgd]
    excess = [row.overestimate for row in pgd]
    assert excess == pytest.approx(
        [r.accuracy - a for r, a in zip(pgd, last, strict=True)]
    )
    assert max(excess) > 0.1  # PGD's steps are too small
    cell = f"PGD, {100 * excess[1]:.2f} above AutoAttack"
    assert cell in str(with_all)
    assert cell in with_all._repr_html_()
    # Of all attacks together it is known how many logits were NaN.
    assert all(row.nan_logits is None for row in rows)
    assert str(with_all).count("NaN logits for 1 images, which count as broken.") == 1


def test_options_reach_every_attack():
    options = {"top_k": 2, "bounds": (-1.0, 2.0)}
    steps = {"eps": [0.1, 0.6], "step_size": 0.02, "steps": 6, "init_radius": 0.3}
    found = report(scale="l2", single_fourier_eps=4.0, restarts=3, **(options | steps))

    def fourier(**changes):
        changed = {"scale": "l2"} | options | changes
        return absum_jax.single_fourier_accuracy(MODEL, X, Y, 4.0, **changed).accuracy

    def attacked(**changes):
        changed = {"restarts": 3} | steps | options | changes
        return absum_jax.pgd_accuracy(MODEL, X, Y, key=KEY, **changed).accuracy

    assert found.rows[0].accuracy == absum_jax.accuracy(MODEL, X, Y, top_k=2)
    np.testing.assert_allclose(found.grid, fourier(), atol=1e-6)
    ours = [row.accuracy for row in found.rows if row.attack == "PGD"]
    np.testing.assert_allclose(ours, attacked(), atol=1e-6)
    # Each of them matters here.
    for change in ({"top_k": 1}, {"bounds": (0.0, 1.0)}, {"scale": "linf"}):
        assert (fourier(**change) != found.grid).any()
    for change in ({"top_k": 1}, {"bounds": (0.0, 1.0)}, {"restarts": 1}):
        assert (attacked(**change) != np.float32(ours)).any()
    told = {name: found.conditions[name] for name in ("scale", "top_k", "bounds")}
    assert told == {"scale": "l2", "top_k": 2, "bounds": [-1, 2]}
