"""The command line as a user sees it."""

import functools
import os
import pathlib
import subprocess
import sys

import command_line
import jax
import numpy as np
import pytest
from command_line import mistake
from tiny_network import in_place_of_small_cnn

import absum_jax
from experiments import cli, composed
from experiments.config import NONE, Setting
from experiments.data import DataOptions, load
from experiments.figures.figure7 import Figure7Options
from experiments.figures.fourier_heatmaps import FourierHeatmapsOptions
from experiments.jobs import files
from experiments.names import suggestion
from experiments.options import ModelOptions, SweepOptions
from experiments.reporting import naming
from experiments.studies.snc_readings import SncReadingsOptions

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = (
    "--dataset=mnist5k", "--train-examples=128", "--test-examples=10",
    "--strengths", "0.1", "0.01", "--max-norms=1", "--epochs=2",
    "--frequency-stride=14",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "a command is missing; python -m experiments --help lists them."),
        ("tabel1", "there is no command tabel1; did you mean table1?"),
        ("nothing", "no command nothing; python -m experiments --help lists them."),
        ("figure6", "; did you mean figure6a or figure6b?"),
        ("table1 --epohcs 3", "there is no option --epohcs; did you mean --epochs?"),
        ("table1 --quickly", "there is no option --quickly."),
        ("table1 3", "'3' follows no option; options begin with --."),
        ("table1 --no-epochs", "there is no option --no-epochs"),
        ("table1 --no-download now", "--no-download takes no value, got 'now'."),
        ("table1 --epochs", "--epochs takes one value, got none."),
        ("table1 --epochs 3 4", "--epochs takes one value, got '3 4'."),
        ("table1 --epochs three", "--epochs must be an integer, got 'three'."),
        ("table1 --seeds 0 one", "--seeds must be integers, got 'one'."),
        ("reproduce --minutes x", "--minutes must be a number, got 'x'."),
        ("figure1 --frequencies 1 2 3", "must be 2 integers each, got '1 2 3'."),
        ("table1 --dataset minst", "FILE.npz, got 'minst'; did you mean mnist?"),
        ("table1 --dataset fashion-mnist", "; did you mean fashion_mnist?"),
        ("table1 --dataset MNIST", "; did you mean mnist?"),
        ("figure6a --datasets mnist cifra10", "--datasets must be among mnist5k, "),
        ("train --dataset no.npz", "/no.npz is missing; give a file of the arrays"),
        ("table1 --network resnet-18", "got 'resnet-18'; did you mean resnet18?"),
        ("table1 --methods sgd", "--methods must be among none, weight_decay, l1, "),
        ("table1 --methods abssum", "got 'abssum'; did you mean absum?"),
        ("reproduce --only tabel1", "got 'tabel1'; did you mean table1?"),
        ("table1 --select-on train", "one of test, validation, paper, got 'train'."),
        ("table1 --runs-dir=", "--runs-dir: a path must not be empty"),
        ("table1 --epochs 0", "--epochs must be at least 1, got 0"),
        ("table1 --strengths -1", "--strengths must be positive numbers"),
        ("table1 --strengths 0", "--methods none"),
        ("table1 --strengths inf", "--strengths must be positive numbers"),
        ("table1 --strengths nan", "--strengths must be positive numbers"),
        ("table1 --strengths", "--strengths must name at least one"),
        ("table1 --strengths 1 1", "--strengths names one twice"),
        ("table1 --max-norms 0", "--max-norms must be positive numbers"),
        ("table1 --max-norms", "--max-norms must name at least one"),
        ("snc-readings --max-norms 1 1", "--max-norms names one twice"),
        ("snc-readings --methods", "--methods must name at least one"),
        ("snc-readings --methods snc snc", "--methods names one twice"),
        ("snc-readings --methods no", "--methods must be among none, snc, snc-last,"),
        ("spectra --seeds 0 1", "--seeds must be exactly one, got 0 1"),
        ("spectra --strengths 1 2", "--strengths must be exactly one, got 1 2"),
        ("diagnostics --max-norms", "--max-norms must be exactly one, got none"),
        ("figure8 --strengths 1 2", "--strengths must be exactly one, got 1 2"),
        ("snc-readings --methods no", "snc-oihw, snc-numpy-axes, got 'no'"),
        ("snc-readings --finished-seeds 1 1", "--finished-seeds names one twice"),
        ("snc-readings --finished-seeds -1", "--finished-seeds must lie in 0.."),
        ("train --methods none --strengths 0", "--methods none"),
        ("train --seeds 1 1", "--seeds names one twice"),
        ("train --train-steps 0", "--train-steps must be at least 1, got 0"),
        ("train --train-steps 5", "must be left out with --training clean, got 5"),
        ("train --training fast --train-steps 5", "out with --training fast, got 5"),
        ("table4 --training clean --train-steps 5", "without --training pgd, got 5"),
        ("train --part 0/2", "--part must be K/N with K in 1..N, such as 2/4, got"),
        ("train --part 3/2", "--part must be K/N"),
        ("train --part half", "--part must be K/N"),
        ("table1 --part 1/2/3", "--part must be K/N"),
        ("table4 --part -1/2", "--part must be K/N"),
        ("train --part 1/2", "--part 1/2: 1 model is too few for 2 parts"),
        ("figure8 --part 1/2", "there is no option --part"),
        ("table2 --select-on published", "published"),
        ("table4 --training sgd", "sgd"),
        ("table4 --training", "--training must name at least one"),
        ("table4 --train-steps 0", "--train-steps must be at least 1, got 0"),
        ("table4 --test-steps 0", "--test-steps must be at least 1, got 0"),
        ("figure7 --eps 0", "--eps must be positive and at most 1, got 0"),
        ("fourier-heatmaps --norm -1", "--norm must be a positive number, got -1"),
        ("frequencies --norm 0", "--norm must be a positive number, got 0"),
        ("frequencies --frequency-stride 2", "must be 1 for Fourier basis noise"),
        ("fourier-heatmaps --frequency-stride 2", "must be 1 for Fourier basis noise"),
        ("table1 --seeds -1", "--seeds must lie in 0.."),
        ("table1 --seeds 1 1", "--seeds names one twice"),
        ("table1 --methods", "--methods must name at least one"),
        ("table1 --train-examples 0", "--train-examples must lie in 1..4000"),
        ("table1 --train-examples 63", "--train-examples must be at least a batch, 64"),
        ("table1 --test-examples 1001", "--test-examples must lie in 1..1000"),
        ("table1 --dataset mnist --data-dir no", "mnist is not prepared in no"),
        ("demo --epochs 0", "--epochs must be at least 1"),
        ("demo --seeds", "--seeds must name at least one"),
        ("figure1 --images 11", "--images must lie in 1..10, got 11"),
        ("figure1 --eps 2", "--eps must lie in 0..1, got 2"),
        ("figure1 --frequencies", "--frequencies must name at least one"),
        ("figure1 --frequencies 28 0", "--frequencies must lie below 28 and 28"),
        ("table2 --dataset imagenet2012", "imagenet2012: the paper has no PGD on it"),
        ("table4 --dataset imagenet2012", "imagenet2012: the paper has no PGD on it"),
        ("figure7 --dataset imagenet2012", "imagenet2012: the paper has no PGD on it"),
        ("train --dataset imagenet2012 --training pgd", "no PGD on it, in training"),
        ("train --dataset imagenet2012 --training fast", "no PGD on it, in training"),
        ("train --dataset imagenet2012 --methods snc", "on imagenet2012: give --max-n"),
        ("train --dataset imagenet2012 --network resnet18", "be one of resnet18_224"),
        ("fourier-heatmaps --dataset imagenet2012", "224 x 224 images have 50,176;"),
        (
            "table1 --dataset imagenet2012 --select-on paper",
            "the paper has no snc of resnet18_224 on imagenet2012; --max-norms must be "
            "the one to take, got 0.01 0.1 0.5 1 10, or leave snc out",
        ),
        ("figure3 --results-dir", "results-dir"),
        ("figure3 --results-dir /dev/null/x", "--results-dir /dev/null/x cannot be"),
        ("figure1 --cache-dir /dev/null/x", "--cache-dir /dev/null/x cannot be"),
        ("table1 --runs-dir /dev/null", "--runs-dir /dev/null cannot be written to"),
        # Whether it has records is a collective, which no other folder may precede.
        ("table1 --runs-dir /dev/null --results-dir /dev/null/x", "--runs-dir /dev/n"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # some are found only when folders are there
    assert message in mistake(capsys, *arguments.split())


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        (
            {"methods": ("none", "absum", "l1")},
            [NONE, Setting("absum", 1e-2), Setting("l1", 1e-4)],
        ),
        (
            {"methods": ("weight_decay", "snc"), "max_norms": (0.5,)},
            [Setting("weight_decay", 1e-4), Setting("snc", 0.5)],
        ),
    ],
)
def test_strengths_of_the_paper_on_imagenet(changes, settings):
    options = SweepOptions(ModelOptions("imagenet2012"), select_on="paper", **changes)
    assert list(options.settings()) == settings


def test_the_form_of_an_error(capsys):
    assert cli.main(["table1", "--strengths", "-1", "-2.5"]) == 2
    assert capsys.readouterr() == (
        "",
        "experiments table1: --strengths must be positive numbers, got -1 -2.5.\n",
    )


@pytest.mark.parametrize("command", cli._COMMANDS)
def test_arguments_are_checked_by_the_names_and_types_that_are_parsed(command):
    """Defaults, as help shows them, pass the check and parse to themselves."""
    options_type = cli.options_type(command)
    options = options_type()
    values = composed.flat(options)
    flags = [name for name, _ in composed.flags(options_type)]
    assert len(flags) == len(values)
    arguments = []
    for flag, value in zip(flags, values.values(), strict=True):
        if isinstance(value, bool):
            arguments.append(f"--no-{flag[2:]}" if not value else flag)
        else:
            many = value if isinstance(value, tuple) else [value]
            arguments += [flag, *(str(v).replace("snc_n", "snc-n") for v in many)]
    assert cli.parse(command, arguments) == options


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert said == f"absum_jax {absum_jax.__version__}, jax {jax.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["figure6b", "reproduce"])
def test_a_backend_that_there_is_not(command, tmp_path):
    program = "import os; os.environ['JAX_PLATFORMS'] = 'nosuch'"
    done = command_line.run(program, command, f"--results-dir={tmp_path}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"experiments {command}: Unable to initialize backend 'nos")


@pytest.mark.parametrize("command", cli._COMMANDS)
def test_help_explains_every_option(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: python -m experiments {command} " in text
    if command not in ("train", "evaluate", "record", "restore", "models"):
        assert "--results-dir" in text
    if command != "models":
        assert "(default: " in text


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("tabel1", "; did you mean table1?"),
        ("TABLE1", "; did you mean table1?"),
        ("figure6", "; did you mean figure6a or figure6b?"),
        ("table9", "."),  # as close to four of them
        ("x", "."),
    ],
)
def test_suggestions(text, end):
    assert suggestion(text, cli._COMMANDS) == end


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in cli._COMMANDS:
        assert f"    {command} " in text or f"    {command}\n" in text


def test_the_commands_are_known_without_what_takes_seconds_to_import():
    slow = "{'jax', 'flax', 'orbax', 'matplotlib', 'scipy'}"
    program = f"import sys, experiments.cli; sys.exit(str({slow} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr.strip() == "set()"


@pytest.mark.slow
@in_place_of_small_cnn()
def test_table1_from_nothing_and_again(tmp_path, capsys):
    arguments = ["table1", *SMALL, "--runs-dir", str(tmp_path / "runs"),
                 "--results-dir", str(tmp_path / "results")]  # fmt: skip
    assert cli.main(arguments) == 0
    first = capsys.readouterr()
    assert "training 8 models on mnist5k" in first.err
    assert "| Absum " in first.out
    written = [
        pathlib.Path(line.removeprefix("wrote "))
        for line in first.out.splitlines()
        if line.startswith("wrote ")
    ]
    folder = tmp_path / "results" / "scaled"
    assert {path.relative_to(folder).as_posix() for path in written} == {
        f"{name}/mnist5k.{kind}"
        for name, kinds in (
            ("table1", ("json", "csv", "md")),
            ("figure2", ("png", "pdf")),
            ("figure4", ("png", "pdf")),
            ("figure5", ("png", "pdf")),
        )
        for kind in kinds
    }
    assert all(path.stat().st_size for path in written)
    document = files.read_json(folder / "table1" / "mnist5k.json")
    assert len(document["models"]) == 8

    assert cli.main(arguments) == 0
    second = capsys.readouterr()
    assert "8 of 8 models are trained already" in second.out
    assert second.err == ""
    assert (
        files.read_json(folder / "table1" / "mnist5k.json")["models"]
        == document["models"]
    )


@pytest.mark.slow
@in_place_of_small_cnn()
def test_validation_selects(tmp_path, capsys):
    assert cli.main(
        ["table1", *SMALL, "--methods=l1", "--epochs=1", "--select-on=validation",
         "--runs-dir", str(tmp_path / "runs"), "--results-dir", str(tmp_path)]
    ) == 0  # fmt: skip
    said = capsys.readouterr()
    assert said.err.count("single-fourier: 2 models on 10 images: compiling") == 2
    assert "best Avg. on the validation images" in said.out


@pytest.mark.slow
@in_place_of_small_cnn()
def test_demo_in_small(tmp_path, capsys, monkeypatch):
    from experiments import demo

    monkeypatch.setattr(
        demo, "ModelOptions", functools.partial(demo.ModelOptions, train_examples=128)
    )
    monkeypatch.setattr(
        demo, "SweepOptions", functools.partial(demo.SweepOptions, test_examples=10)
    )
    assert cli.main(
        ["demo", "--epochs", "1", "--runs-dir", str(tmp_path / "runs"),
         "--results-dir", str(tmp_path / "demo")]
    ) == 0  # fmt: skip
    said = capsys.readouterr().out
    for name in ("no regularization", "weight decay", "L1", "Absum", "SNC"):
        assert f"| {name}" in said
    assert (tmp_path / "demo" / "heatmaps.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_closed_output():
    done = command_line.run("import sys; sys.stdout = None", "table1", "--help")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_an_output_that_lacks_letters(tmp_path):
    done = command_line.run(
        "import sys; sys.stdout.reconfigure(encoding='ascii')",
        "figure3", f"--results-dir={tmp_path}/\xfc",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert f"wrote {tmp_path}/\\xfc/figure3" in done.stdout


def test_no_float64(capsys):
    with jax.enable_x64(True):
        assert cli.main(["models"]) == 2
    assert "unset JAX_ENABLE_X64" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["figure1", "figure3"])
def test_figures(tmp_path, capsys, command):
    assert cli.main([command, "--results-dir", str(tmp_path)]) == 0
    assert len(list((tmp_path / command).iterdir())) == 2


def test_other_conditions_have_names_of_their_own():
    for options, name, variant in (
        (Figure7Options(eps=0.3), "eps", "-eps-0.3"),
        (Figure7Options(), "eps", ""),
        (FourierHeatmapsOptions(norm=2), "norm", "-norm-2"),
        (SncReadingsOptions(max_norms=(0.5, 1)), "max_norms", "-max-norm-0.5-1"),
    ):
        assert naming.variant(options, name) == variant
    path = naming.path("figure7", SweepOptions(), variant="-eps-0.3")
    assert path == pathlib.Path("scaled/figure7/mnist5k-eps-0.3")


@pytest.mark.slow
def test_real_mnist(prepared_tfds, tmp_path):
    # By itself, with the optimizations that tests do without: it takes a third as long.
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "table1", "--dataset=mnist", "--epochs=2",
         "--data-dir", str(prepared_tfds), "--train-examples=12800",
         "--test-examples=200", "--frequency-stride=7", "--strengths=0.01",
         "--methods", "none", "absum",
         "--runs-dir", str(tmp_path / "runs"), "--results-dir", str(tmp_path)],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "(98.64)" in done.stdout
    document = files.read_json(tmp_path / "scaled" / "table1" / "mnist.json")
    # A fifth of the images for two epochs; 97 % with all of them.
    assert all(model["clean"] > 0.85 for model in document["models"])
    train = load("mnist", DataOptions(data_dir=prepared_tfds)).train.images
    # The well-known mean and standard deviation of the training set.
    assert (train.shape, train.dtype) == ((60000, 28, 28, 1), np.uint8)
    assert train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert train.std() / 255 == pytest.approx(0.3081, abs=5e-5)
