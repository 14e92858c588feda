"""What the documents say is so: examples run, commands and links exist."""

import contextlib
import io
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]


@pytest.mark.parametrize(
    ("document", "outputs"),
    [("README.md", 4), ("docs/attacks.md", 4), ("docs/spectra.md", 3)],
)
def test_examples_run_and_print_what_they_say(document, outputs):
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {"__name__": "example"}
    printed = ""
    compared = 0
    for kind, block in blocks:
        if kind == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(block, names)
            printed = output.getvalue()
        elif printed:
            assert printed.strip() == block.strip()
            printed = ""
            compared += 1
    assert compared == outputs


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
