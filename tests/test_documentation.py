"""What the documents say is so: examples run, commands and links exist."""

import contextlib
import io
import pathlib
import re
import subprocess

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]


def _outputs(document):
    """What the examples of a document print, each with what it says of that."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {"__name__": "example"}
    printed = ""
    outputs = []
    for kind, block in blocks:
        if kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(block, names)
            printed = output.getvalue()
        elif printed:
            outputs.append((printed.strip(), block.strip()))
            printed = ""
    return outputs


# A few of the images of a report: those whose two largest logits differ by rounding.
_POINTS = 2.0


def _assert_alike(printed, said):
    """Compares what is printed, the accuracies of reports up to a few images."""
    rows, expected = printed.splitlines(), said.splitlines()
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        if not re.search(r"\d \|  *[\d.]+ to  *[\d.]+ \|$", wanted):
            assert row == wanted
            continue
        # The columns of the accuracy and of its interval come last.
        *exact, accuracy, interval = (cell.strip() for cell in row.split("|")[1:-1])
        *same, about, between = (cell.strip() for cell in wanted.split("|")[1:-1])
        assert exact == same
        numbers, others = (
            [float(n) for n in re.findall(r"\d+\.\d\d", f"{a} {b}")]
            for a, b in ((accuracy, interval), (about, between))
        )
        assert len(numbers) == len(others) == 3
        np.testing.assert_allclose(numbers, others, atol=_POINTS)


def test_accuracies_are_compared_up_to_a_few_images():
    said = "| PGD |  0.05 | 78.00 | 71.76 to 83.18 |"
    _assert_alike("| PGD |  0.05 | 77.50 | 71.22 to 82.73 |", said)
    for other in (
        "| PGD |  0.05 | 71.00 | 64.37 to 76.85 |",
        "| PGD |  0.06 | 78.00 | 71.76 to 83.18 |",
        "| FGSM | 0.05 | 78.00 | 71.76 to 83.18 |",
        "",
    ):
        with pytest.raises(AssertionError):
            _assert_alike(other, said)
    with pytest.raises(AssertionError):
        _assert_alike("0.42 on average", "0.41 on average")


@pytest.mark.parametrize(
    ("document", "count"),
    [("README.md", 4), ("docs/attacks.md", 4), ("docs/spectra.md", 4)],
)
def test_examples_run_and_print_what_they_say(document, count):
    outputs = _outputs(document)
    assert len(outputs) == count
    for printed, said in outputs:
        _assert_alike(printed, said)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_understood(document, capsys):
    from experiments import cli

    commands = re.findall(
        r"^    python -m experiments ([^#\n]+)", document.read_text(), re.M
    )
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            cli.main([*command.split(), "--help"])
        assert stop.value.code == 0, command
        assert "usage" in capsys.readouterr().out


def test_make_targets_exist():
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"(?:^    |`)make ([a-z]+)", text, re.M))
    assert {"demo", "test", "bench", "help"} <= targets
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in targets:
        assert re.search(rf"^{target}\s", listed, re.M), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_is_left_to_fill_in(document):
    assert not re.search(r"^[A-Z_]{4,}$", document.read_text(), re.M)
