"""What the documents say is so: examples run, commands and links exist."""

import concurrent.futures
import contextlib
import io
import multiprocessing
import os
import pathlib
import re
import subprocess

import pytest

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


@pytest.mark.parametrize(
    ("document", "count"),
    [("README.md", 4), ("docs/attacks.md", 4), ("docs/spectra.md", 3)],
)
def test_examples_run_and_print_what_they_say(document, count, monkeypatch):
    # In a process of its own: the gradient of a convolution with strides takes ten
    # times as long without optimization, as the other tests compile.
    flags = os.environ["XLA_FLAGS"].replace("level=0", "level=1")
    monkeypatch.setenv("XLA_FLAGS", flags)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        outputs = pool.submit(_outputs, document).result()
    assert len(outputs) == count
    for printed, said in outputs:
        assert printed == said


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
