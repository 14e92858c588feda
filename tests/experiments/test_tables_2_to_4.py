"""Tables 2, 3 and 4, Figure 7 and Fourier heat maps, from the command line."""

import csv
import dataclasses

import numpy as np
import pytest

from experiments import cli
from experiments.config import Adversary, Setting
from experiments.data import pgd_of
from experiments.evaluation import auto_attack, clean, gradient
from experiments.evaluation.clean import Clean
from experiments.evaluation.frequency import radii_of
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.jobs.parts import DivisionOptions
from experiments.options import ModelOptions, SweepOptions, filled_up, pairs
from experiments.published import TABLE1, TABLE2, TABLE3, TABLE4
from experiments.reporting import selection
from experiments.reporting.evaluated import Pgd, PgdModel
from experiments.tables.table2 import Transfer
from experiments.tables.table4 import Table4Options
from experiments.training.runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_network")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands of this module put models, results and data."""
    return tmp_path_factory.mktemp("tables")


def _run(folder, capsys, command, *arguments):
    code = cli.main(
        [command, "--epochs=1", "--train-examples=128", "--test-examples=20",
         "--select-on=paper", "--methods", "none", "absum", *arguments,
         f"--runs-dir={folder}/runs", f"--results-dir={folder}/results"]
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr()
    written = [line for line in said.out.splitlines() if line.startswith("wrote ")]
    assert all(f"{folder}/results/scaled/" in line for line in written)
    return said


def test_table2(folder, capsys):
    said = _run(folder, capsys, "table2", "--seeds", "0")
    # Seed 0, of which there may be models already, and seed 1, its pair.
    assert "training 2 models on mnist5k" in said.err
    assert "(76.34)" in said.out
    document = files.read_json(folder / "results/scaled/table2/mnist5k-paper.json")
    matrix = np.array(document["matrix"])
    assert matrix.shape == (2, 2, 2)
    assert document["methods"] == ["none", "absum"]
    for i, row in enumerate(document["rows"]):
        assert row["transferred_mean"] == pytest.approx(matrix[:, i, i].mean())
    assert document["pgd"] == {
        "eps": 0.2, "step_size": 0.01, "steps": 40, "init_radius": 2 / 255,
    }  # fmt: skip
    assert document["seeds"] == [0, 1]
    assert "1 of 100 epochs" in said.out
    assert "1 epochs, seeds 0, 1; " in said.out
    again = _run(folder, capsys, "table2", "--seeds", "0", "1")
    assert again.err == ""
    assert files.read_json(
        folder / "results/scaled/table2/mnist5k-paper.json"
    )["matrix"] == document["matrix"]  # fmt: skip


def test_an_added_seed_of_table2_must_not_be_broken(folder, capsys, monkeypatch):
    evaluate = clean.evaluate

    def broken(images, runs):
        return [
            dataclasses.replace(found, classes_predicted=1) if own else found
            for own, found in zip(
                [run.config.seed == 1 for run in runs], evaluate(images, runs),
                strict=True,
            )
        ]  # fmt: skip

    monkeypatch.setattr(clean, "evaluate", broken)
    code = cli.main(
        ["table2", "--epochs=1", "--train-examples=128", "--test-examples=20",
         "--select-on=paper", "--methods", "none", "absum", "--seeds=0",
         f"--runs-dir={folder}/runs", f"--results-dir={folder}/results"]
    )  # fmt: skip
    assert code == 2
    said = capsys.readouterr().err
    assert "--seeds has no partner for seed 0, and these models with" in said
    assert "diverged: Absum 0.01 (seed 1), no regularization (seed 1)." in said


def test_table2_by_apgd_as_well(folder, capsys):
    arguments = ("table2", "--seeds", "0", "1", "--test-examples=10")
    _run(folder, capsys, *arguments)
    stem = folder / "results/scaled/table2/mnist5k-paper"
    before = files.read_json(stem.with_suffix(".json"))
    assert "attack" not in before["options"]
    said = _run(folder, capsys, *arguments, "--attack", "pgd", "auto")
    assert "transfer: " not in said.err.replace("apgd-transfer: ", "")
    assert "Auto-PGD (APGD: eps = 0.2, 100 steps, cross-entropy) on 10" in said.out
    after = files.read_json(stem.with_suffix(".json"))
    assert after["options"].pop("attack") == ["pgd", "auto"]
    assert after.pop("apgd") == {"eps": 0.2, "steps": 100}
    matrix = np.array(after.pop("matrix_apgd"))
    assert matrix.shape == (2, 2, 2)
    with stem.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for i, row in enumerate(rows):
        expected = matrix[:, i, i].mean()
        assert float(row["transferred_apgd_mean"]) == pytest.approx(expected)
        assert "paper_transferred_apgd" not in row
        for name in [n for n in after["rows"][i] if n.startswith("transferred_apgd_")]:
            del after["rows"][i][name]
    # All else is as without it.
    for document in (before, after):
        del document["provenance"]
    assert after["options"] == before["options"]
    assert after == before
    _run(folder, capsys, *arguments, "--attack", "auto")
    alone = files.read_json(folder / "results/scaled/table2-auto/mnist5k-paper.json")
    assert alone["matrix_apgd"] == matrix.tolist()
    assert not {"pgd", "matrix"} & set(alone)
    assert not [name for name in alone["rows"][0] if name.startswith("transferred_m")]


def test_table3(folder, capsys):
    said = _run(folder, capsys, "table3")
    assert "low-pass, r = 7" in said.out
    assert "(99.00)" in said.out
    assert "(99.01)" in said.out
    stem = folder / "results/scaled/table3/mnist5k-paper"
    document = files.read_json(stem.with_suffix(".json"))
    low, high = np.array(document["low_pass"]), np.array(document["high_pass"])
    assert low.shape == high.shape == (2, 1, 21)
    at = document["radii"].index(7.0)
    with stem.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert float(rows[1]["low_mean"]) == pytest.approx(low[1, 0, at])
    assert float(rows[1]["high_mean"]) == pytest.approx(high[1, 0, at])
    # Beyond the corner of the spectrum nothing is filtered.
    assert low[:, 0, -1] == pytest.approx([float(row["clean_mean"]) for row in rows])
    assert stem.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("command", "option", "suffix"),
    [
        ("figure7", "--eps=0.3", "-eps-0.3"),
        ("fourier-heatmaps", "--norm=2", "-norm-2"),
        ("frequencies", "--norm=2", "-norm-2"),
    ],
)
def test_other_conditions_overwrite_no_file(folder, capsys, command, option, suffix):
    _run(folder, capsys, command, "--test-examples=4", option)
    [*written] = (folder / f"results/scaled/{command}").glob(f"*{suffix}.*")
    assert {path.stem for path in written} == {f"mnist5k-paper{suffix}"}


def test_figure7_and_heat_maps(folder, capsys):
    for command in ("figure7", "fourier-heatmaps"):
        _run(folder, capsys, command, "--test-examples=10")
        stem = folder / f"results/scaled/{command}/mnist5k-paper"
        document = files.read_json(stem.with_suffix(".json"))
        assert [m["method"] for m in document["methods"]] == ["none", "absum"]
        assert stem.with_suffix(".png").stat().st_size > 10_000
        if command == "figure7":
            for method in document["methods"]:
                spectrum = np.array(method["power_spectrum"])
                assert spectrum.shape == (28, 28)
                share = gradient.high_frequency_fraction(spectrum)
                [of_seed] = method["share_of_power_beyond_a_quarter_of_the_width"]
                assert share == pytest.approx(of_seed, rel=1e-4)
    means = [method["mean"][0] for method in document["methods"]]
    assert all(0 <= mean <= 1 for mean in means)


def test_frequencies(folder, capsys):
    # Fourier noise is that of the heat maps.
    said = _run(folder, capsys, "frequencies", "--test-examples=10")
    assert "corruption: 2 models on 10 images" in said.err
    assert "training" not in said.err
    stem = folder / "results/scaled/frequencies/mnist5k-paper"
    document = files.read_json(stem.with_suffix(".json"))
    corrupted = np.array(document["corrupted"])
    assert corrupted.shape == (2, 1, len(document["kinds"]), 5)
    heat_maps = files.read_json(
        folder / "results/scaled/fourier-heatmaps/mnist5k-paper.json"
    )
    with stem.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for i, row in enumerate(rows):
        stopped = np.array(document["band_stop"][i])
        assert stopped.shape == (1, len(document["bands"]))
        assert float(row["band_stop_mean"]) == pytest.approx(stopped.mean())
        assert float(row["corrupted_mean"]) == pytest.approx(corrupted[i].mean())
        noise = heat_maps["methods"][i]
        assert float(row["noise_avg_mean"]) == pytest.approx(noise["mean"][0])
        assert float(row["noise_min_mean"]) == pytest.approx(noise["min"][0])
        assert float(row["clean_mean"]) == pytest.approx(noise["clean"][0])
    assert _run(folder, capsys, "frequencies", "--test-examples=10").err == ""


def test_table4(folder, capsys):
    said = _run(
        folder, capsys, "table4", "--training", "pgd", "fast", "clean",
        "--train-steps=2", "--test-steps=3", "--test-examples=100",
    )  # fmt: skip
    assert "training 2 models adversarially on mnist5k" in said.err
    for part in (
        "2 of 40 PGD steps in training, 3 of 40 PGD steps in evaluation",
        "Table 4, adversarial training, MNIST",
        "Table 4, fast adversarial training, beyond the paper, MNIST",
        "Table 4, training on clean images, MNIST",
        "eps = 0.3 in 2 steps of 0.2 from within",
        "eps = 0.3 in 1 steps of 0.375 from within 0.3",
        "(96.01)",
        "No verdict on the paper's claims: give 3 seeds or more.",
    ):
        assert part in said.out
    documents = {
        name: files.read_json(folder / f"results/scaled/{name}/mnist5k-paper.json")
        for name in ("table4", "table4-fast", "table4-clean")
    }
    assert documents["table4-clean"]["adversary"] is None
    said_of = {name: [c["claim"] for c in d["claims"]] for name, d in documents.items()}
    assert said_of == {
        "table4": ["Absum above no regularization, mean over eps"],
        "table4-fast": [],
        "table4-clean": ["Absum does not improve on no regularization, mean over eps"],
    }
    accuracies = [
        [model["pgd"] for model in document["models"]]
        for document in documents.values()
    ]
    assert np.shape(accuracies) == (3, 2, 6)
    assert len({np.mean(values) for values in accuracies}) > 1

    said = _run(
        folder, capsys, "table4", "--training", "pgd", "clean", "--train-steps=2",
        "--test-steps=3", "--test-examples=100", "--part=2/2",
    )  # fmt: skip
    assert "wrote" not in said.out
    assert said.err == ""
    assert said.out.count("1 of 1 models are trained already") == 2
    part = "Part 2/2, 1 of 2 models, is trained and attacked: Absum "
    assert f"Adversarial training. {part}" in said.out
    assert f"Training on clean images. {part}" in said.out


def test_table4_by_auto_attack(folder, capsys, monkeypatch):
    for name, number in (("STEPS", 2), ("QUERIES", 5)):
        monkeypatch.setattr(auto_attack, name, number)
    # Other steps of PGD than in other tests, whose evaluations may be there.
    arguments = (
        "table4", "--training", "clean", "pgd", "--train-steps=2", "--test-steps=4",
    )  # fmt: skip
    said = _run(folder, capsys, *arguments, "--attack", "auto")
    assert "auto-attack: 1 model on 20 images" in said.err
    assert "PGD was not evaluated on all of these images" in said.out
    _run(folder, capsys, *arguments, "--attack", "pgd")
    # PGD and AutoAttack are on disk, and are compared.
    said = _run(folder, capsys, *arguments, "--attack", "pgd", "auto")
    assert said.err == ""
    assert "PGD was not evaluated" not in said.out
    assert said.out.count("By how many points PGD overestimates the accuracy") == 2
    assert "AutoAttack (standard version, L-infinity), beyond the paper," in said.out
    assert "No verdict on other comparisons: give 3 seeds or more." in said.out
    for name, training in (("table4-auto", "pgd"), ("table4-clean-auto", "clean")):
        stem = folder / f"results/scaled/{name}/mnist5k-paper"
        document = files.read_json(stem.with_suffix(".json"))
        assert "PGD steps in evaluation" not in document["title"]
        assert "Table 4 by AutoAttack, " in document["title"]
        assert document["training"] == training
        assert document["auto_attack"] == {
            "eps": [0.05, 0.1, 0.15, 0.2, 0.25, 0.3], "steps": 100, "queries": 5000,
        }  # fmt: skip
        of_pgd = files.read_json(
            folder / f"results/scaled/{name.removesuffix('-auto')}/mnist5k-paper.json"
        )
        markdown = stem.with_suffix(".md").read_text().splitlines()
        [start] = [i for i, line in enumerate(markdown) if "overestimates" in line]
        for i, model in enumerate(document["models"]):
            counts = np.array(model["images"])
            assert counts.sum(axis=1).tolist() == [20] * 6
            assert model["auto_attack"] == (counts[:, 0] / 20).tolist()
            assert np.all(np.diff(counts[:, 0]) <= 0)
            assert counts[:, 1].tolist() == [round(20 * (1 - model["clean"]))] * 6
            assert model["pgd"] == of_pgd["models"][i]["pgd"]
            row = document["rows"][i]
            assert row["eps=0.05_mean"] == model["auto_attack"][0]
            more = np.subtract(model["pgd"], model["auto_attack"])
            cells = [c.strip() for c in markdown[start + 4 + i].strip("|").split("|")]
            numbers = [float(cell) for cell in cells[1:]]
            assert numbers == pytest.approx(100 * more, abs=0.0051)
            assert "-0.00" not in cells
        assert stem.with_suffix(".png").stat().st_size > 10_000


def test_auto_attack_needs_classes_and_all_models():
    with pytest.raises(UsageError, match="--part only if --select-on is paper"):
        Table4Options(attack=("auto",), division=DivisionOptions("1/2"))
    paper = SweepOptions(select_on="paper")
    Table4Options(paper, attack=("auto",), division=DivisionOptions("1/2"))
    Table4Options(attack=("pgd",), division=DivisionOptions("1/2"))


def test_clean_training_has_the_strengths_of_table_1():
    fashion = SweepOptions(ModelOptions("fashion_mnist"), select_on="paper")
    options = Table4Options(fashion)
    assert [s.strength for s in fashion.settings(options.table("clean"))] == [
        0, 0.01, 0.001, 0.001, 10,
    ]  # fmt: skip
    assert options.table("pgd") == options.table("fast") == TABLE4


def test_the_share_of_high_frequencies():
    # Of a flat spectrum it is the share of frequencies beyond 7 cycles, counted here.
    far = [(l, m) for l in range(-14, 14) for m in range(-14, 14) if l * l + m * m > 49]
    flat = np.ones((28, 28))
    assert gradient.high_frequency_fraction(flat) == pytest.approx(len(far) / 784)
    centre = np.zeros((28, 28))
    centre[14, 14 + 7] = 1
    assert gradient.high_frequency_fraction(centre) == 0
    centre[14 + 5, 14 + 5] = 3
    assert gradient.high_frequency_fraction(centre) == pytest.approx(0.75)


def test_strengths_are_those_of_table_1(folder, capsys):
    arguments = (
        "--select-on=test", "--methods=absum", "--strengths", "10", "0.01",
    )  # fmt: skip
    _run(folder, capsys, "table1", "--frequency-stride=14", *arguments)
    table1 = files.read_json(folder / "results/scaled/table1/mnist5k.json")
    best = max(table1["models"], key=lambda model: model["selection_avg"])
    said = _run(folder, capsys, "table3", "--frequency-stride=14", *arguments)
    assert "2 of 2 models are trained already" in said.out
    [row] = files.read_json(folder / "results/scaled/table3/mnist5k.json")["rows"]
    assert row["strength"] == best["strength"] == table1["rows"][0]["strength"]


def test_nothing_to_compare_is_told(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        selection.clean,
        "evaluate",
        lambda images, runs: [Clean(0.1, 1, 0.0)] * len(runs),
    )
    code = cli.main(
        ["table3", "--epochs=1", "--train-examples=128", "--test-examples=20",
         "--select-on=paper", "--methods=none", f"--runs-dir={folder}/runs",
         f"--results-dir={folder}/results"]
    )  # fmt: skip
    assert code == 2
    assert "all 1 models answer one class" in capsys.readouterr().err


def test_the_papers_choices_are_trained_alone():
    settings = SweepOptions(select_on="paper").settings()
    assert settings == tuple(
        Setting(m, TABLE1["mnist", "small_cnn"][m].strength if m != "none" else 0.0)
        for m in ("none", "weight_decay", "l1", "absum", "snc")
    )
    fashion = SweepOptions(ModelOptions("fashion_mnist"), select_on="paper")
    assert [s.strength for s in fashion.settings(TABLE4)] == [0, 1e-5, 1e-6, 1e-3, 10]


def test_adversaries():
    options = Table4Options(SweepOptions(ModelOptions("mnist")))
    assert options.adversary("pgd") == Adversary(0.3, 0.01, 40, 2 / 255)
    assert options.adversary("clean") is None
    # Wong et al. (2020): alpha = 1.25 eps, from within eps.
    fast = options.adversary("fast")
    assert (fast.steps, fast.step_size, fast.init_radius) == (1, 0.375, 0.3)
    fewer = Table4Options(train_steps=10, test_steps=20)
    assert fewer.adversary("pgd").step_size == pytest.approx(0.04)
    assert fewer.evaluation.step_size == pytest.approx(0.02)
    assert len(fewer.scaled("pgd")) == 3  # and a small data set
    assert len(fewer.scaled("clean")) == 2
    same = Table4Options(SweepOptions(ModelOptions("mnist")), train_steps=40)
    assert options.scaled("pgd") == same.scaled("pgd") == []
    color = Table4Options(
        SweepOptions(ModelOptions("cifar10")), train_steps=2, test_steps=10
    )
    # As far as the seven steps of 2/255 in training; 100 of them in evaluation would
    # leave the largest ball five times over.
    assert color.adversary("pgd").step_size == pytest.approx(7 / 255)
    assert color.evaluation.step_size == pytest.approx(5 / 255)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "svhn_cropped"])
def test_how_the_paper_attacks_color_images(dataset):
    # P, appendix: Robustness against PGD; Table 2 for attacks that are transferred.
    pgd = pgd_of(dataset)
    assert (pgd.step_size, pgd.init_radius) == (2 / 255, 2 / 255)
    assert (pgd.train_eps, pgd.train_steps, pgd.test_steps) == (8 / 255, 7, 100)
    assert pgd.test_eps == tuple(eps / 255 for eps in (4, 8, 12, 16, 20))
    assert pgd.transfer_eps == 4 / 255


def test_how_the_paper_trains():
    # P, appendix: MNIST and Fashion-MNIST; CIFAR10 ...; Robustness against PGD.
    def recipes(dataset, **changes):
        options = Table4Options(SweepOptions(ModelOptions(dataset, **changes)))
        models = options.sweep.models
        return models.recipe(), models.recipe(options.adversary("pgd"))

    for recipe in recipes("fashion_mnist"):
        assert (recipe.epochs, recipe.batch_size, recipe.milestones) == (100, 64, ())
        assert (recipe.learning_rate, recipe.momentum) == (0.01, 0.5)
        assert (recipe.decay, recipe.augmented) == (0, False)
    plain, adversarial = recipes("cifar10")
    for recipe in (plain, adversarial):
        assert (recipe.batch_size, recipe.learning_rate) == (128, 0.1)
        assert (recipe.momentum, recipe.augmented) == (0.9, True)
    assert (plain.epochs, plain.milestones, plain.decay) == (350, (150, 250), 0)
    assert (adversarial.epochs, adversarial.milestones) == (150, (50, 100))
    assert adversarial.decay == 1e-4
    assert recipes("svhn_cropped")[1].decay == 0
    assert recipes("cifar10", epochs=35)[0].milestones == (15, 25)
    short = Table4Options(SweepOptions(ModelOptions("cifar10", epochs=35)))
    assert "35 of 350 epochs" in short.scaled("clean")[0]
    assert "35 of 150 epochs" in short.scaled("pgd")[0]


@pytest.fixture
def attacked(make_config, tmp_path):
    def make(
        method, strength, seed, accuracies, *, classes=10, selection=None, diverged_at=0
    ):
        run = Run(tmp_path, make_config(Setting(method, strength), seed))
        run.begin(0)
        run.log(1, 0.5, 0.1, diverged_at)
        accuracies = np.array(accuracies)
        selection = accuracies.mean() if selection is None else selection
        plain = Clean(0.9, classes, 0.0)
        return PgdModel(run, Pgd(plain, accuracies, np.zeros(2)), float(selection))

    return make


def test_table4_selects_by_the_mean_over_eps_and_seeds(attacked):
    models = [
        attacked("l1", 0.1, 0, [0.9, 0.1]),
        attacked("l1", 0.1, 1, [0.9, 0.1]),
        attacked("l1", 0.01, 0, [0.7, 0.4]),
        attacked("l1", 0.01, 1, [0.6, 0.4]),
        attacked("l1", 10.0, 0, [0.99, 0.99], classes=1),
        attacked("l1", 10.0, 1, [0.99, 0.99]),
        attacked("absum", 0.1, 0, [0.2, 0.2], selection=0.9),
        attacked("absum", 0.2, 0, [0.8, 0.8], selection=0.7),
        attacked("absum", 0.3, 0, [0.99, 0.99], diverged_at=7),
    ]
    selected, degenerate = selection.select(models, ["absum", "l1"])
    absum, l1 = Setting("absum", 0.1), Setting("l1", 0.01)
    assert selected == {l1: models[2:4], absum: models[6:7]}
    assert list(selected) == [absum, l1]
    assert degenerate == [models[4], models[8]]
    assert models[8].as_dict()["diverged"]


def test_radii_reach_the_corner_and_hold_a_quarter_of_the_width():
    assert radii_of((28, 28, 1)) == tuple(map(float, range(21)))
    assert 7.5 in radii_of((30, 30, 1))


def test_seeds_of_table2_attack_each_other_in_pairs():
    assert filled_up((5, 3)) == (5, 3)
    assert filled_up((5,)) == (5, 6)
    assert filled_up((0, 7, 3)) == (0, 7, 3, 8)
    assert filled_up((2**31 - 1,)) == (2**31 - 1, 0)
    assert filled_up((2**31 - 1, 0, 1)) == (2**31 - 1, 0, 1, 2)
    assert pairs(filled_up((9, 4, 6))) == [(9, 4), (6, 10)]
    matrix = np.arange(4 * 2 * 2).reshape(4, 2, 2)
    means = Transfer({"pgd": matrix}, np.zeros((4, 2))).of_pairs("pgd")
    np.testing.assert_array_equal(means[1], (matrix[2] + matrix[3]) / 2)


def test_published_numbers_are_the_papers():
    # Read off P, Tables 2 to 4, a second time: Absum, WD, L1, SNC, w/o Reg.
    methods = ("absum", "weight_decay", "l1", "snc", "none")
    rows = {
        "mnist": ("76.34 48.94 66.48 71.30 65.87", "99.00 98.98 99.10 98.97 99.01"),
        "fashion_mnist": ("30.08 3.46 18.35 21.31 19.74",
                          "84.15 83.91 82.56 84.30 84.03"),
        "cifar10": ("26.29 18.48 15.66 48.85 15.85", "64.51 52.82 47.01 82.11 47.46"),
        "cifar100": ("18.57 17.40 16.68 36.57 16.68", "41.44 36.15 31.53 61.22 31.80"),
        "svhn_cropped": ("49.11 40.49 52.79 46.36 54.39",
                         "52.95 28.11 17.03 18.75 11.13"),
    }  # fmt: skip
    for dataset, numbers in rows.items():
        for table, row in zip((TABLE2, TABLE3), numbers, strict=True):
            [published] = (row for key, row in table.items() if key[0] == dataset)
            found = [published[method] for method in methods]
            assert found == [float(number) for number in row.split()]
    # Table 4: the first and last accuracy of each row, and the strength.
    ends = {
        "mnist": "96.01 90.78 92.97 85.96 93.12 87.06 91.92 76.92 91.57 84.86",
        "fashion_mnist": "66.94 64.95 65.38 61.96 66.13 61.66 51.58 44.04 63.36 60.26",
        "cifar10": "69.42 6.54 69.48 6.06 68.99 6.31 68.47 6.04 68.46 6.08",
        "cifar100": "42.19 4.14 41.14 4.28 40.75 3.67 40.90 4.13 40.70 3.86",
        "svhn_cropped": "77.78 5.50 76.66 5.04 76.50 5.63 77.23 5.03",
    }
    strengths = {
        "mnist": (1e-3, 1e-4, 1e-4, 10),
        "fashion_mnist": (1e-3, 1e-5, 1e-6, 10),
        "cifar10": (1e-5, 1e-5, 1e-5, 10),
        "cifar100": (1e-4, 1e-7, 1e-4, 10),
        "svhn_cropped": (1e-5, 1e-7, 1e-6, 1),
    }
    for dataset, row in ends.items():
        [published] = (row for key, row in TABLE4.items() if key[0] == dataset)
        cells = [published[m].accuracies for m in methods if m in published]
        found = [value for cell in cells for value in (cell[0], cell[-1])]
        assert found == [float(number) for number in row.split()]
        assert all(len(cell) == len(pgd_of(dataset).test_eps) for cell in cells)
        assert tuple(published[m].strength for m in methods[:4]) == strengths[dataset]
