"""What the documents say is so: commands, links, names and tables exist.

`make docs` runs their examples.
"""

import functools
import pathlib
import re
import subprocess

import pytest

import absum_jax
from docs import examples, links

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "docs/api", ROOT / "docs/notebooks")
    for path in folder.glob("*.md")
)


def test_outputs_are_those_of_the_block_before():
    text = """
```python
n = 2
```
```text
not an output
```
```python
print(n, "images")
print(95, "%")
```
and then
```text
2 images
94 %
```
"""
    pairs = examples.outputs(text)
    assert pairs == [("2 images\n95 %", "2 images\n94 %")]


REPORT = "| PGD |  0.05 | 78.00 | 71.76 to 83.18 |"


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("| PGD |  0.05 | 77.50 | 71.22 to 82.73 |", REPORT),
        (
            "| PGD |  0.05 | 100.00 | 98.12 to 99.0 |",
            "| PGD |  0.05 | 100.00 | 98.12 to 99.0 |",
        ),
        ("clean 95 %, 3 layers", "clean 97 %, 3 layers"),
    ],
)
def test_percentages_may_differ_by_a_few_images(printed, said):
    assert not examples.differences(printed, said)


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("| PGD |  0.05 | 71.00 | 64.37 to 76.85 |", REPORT),
        ("| PGD |  0.06 | 78.00 | 71.76 to 83.18 |", REPORT),
        ("| FGSM | 0.05 | 78.00 | 71.76 to 83.18 |", REPORT),
        ("", REPORT),
        ("0.42 on average", "0.41 on average"),
        ("clean 95 %, 3 layers", "clean 91 %, 3 layers"),
        ("clean 95 %, 3 layers", "clean 95 %, 4 layers"),
        ("clean 95 %", "clean 95"),
    ],
)
def test_all_else_is_compared_exactly(printed, said):
    assert examples.differences(printed, said)


def test_links_are_resolved_outside_of_the_repository():
    text = "[a](docs/a.md#b) ![i](docs/i.png) [c](https://c.org/x) [d](#e)"
    kept = " [c](https://c.org/x) [d](#e)"
    resolve = functools.partial(
        links.resolve_links, text, is_present=lambda path: False
    )
    assert resolve("", "") == "a " + kept
    root = "https://host/us"
    assert resolve("", root) == (
        f"[a]({root}/blob/main/docs/a.md#b) ![i]({root}/raw/main/docs/i.png)" + kept
    )
    assert f"({root}/blob/main/docs/a.md#b)" in links.resolve_links(
        "[a](../a.md#b)", "docs/api", root, lambda path: False
    )
    assert links.resolve_links(text, "", "", lambda path: path == "docs/a.md") == (
        "[a](docs/a.md#b) " + kept
    )


@pytest.mark.parametrize("url", ["", "https://host/us"])
def test_code_is_no_link(url):
    text = "`f[0](x)` [`g`](https://c.org)\n```python\nf[0](x)\n```\n``f[0](x)``"
    assert links.resolve_links(text, "", url, lambda path: False) == text


def test_an_image_may_be_a_link():
    text = "[![a](a.svg)](https://c.org) [![b](https://c.org/b.svg)](b.md) [c](c.md)"
    root = "https://host/us"
    assert links.resolve_links(text, "", root, lambda path: False) == (
        f"[![a]({root}/raw/main/a.svg)](https://c.org) "
        f"[![b](https://c.org/b.svg)]({root}/blob/main/b.md) [c]({root}/blob/main/c.md)"
    )
    assert links.resolve_links(text, "", "", lambda path: path == "a.svg") == (
        "[![a](a.svg)](https://c.org) ![b](https://c.org/b.svg) c"
    )


def test_the_repository_has_one_address():
    said = (ROOT / "README.md").read_text()
    url = links.repository_url()
    assert said.count("<this repository>") == (0 if url else 2)
    assert url in said


def test_the_api_reference_is_complete():
    pages = "".join(page.read_text() for page in ROOT.glob("docs/api/*.md"))
    documented = re.findall(r"^\.\. auto(?:function|class):: (\w+)$", pages, re.M)
    library = [name for name in documented if name in absum_jax.__all__]
    assert sorted(library) == sorted(absum_jax.__all__)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_readme_has_the_committed_table_1(name):
    table = (ROOT / f"results/table1/{name}-paper.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert "\n".join(rows) in (ROOT / "README.md").read_text()


def _cells(text, first):
    """Returns the cells of the rows whose first one begins so, without emphasis."""
    lines = (line.strip("|").split("|") for line in text.splitlines() if "|" in line)
    rows = [[cell.strip().strip("*") for cell in row] for row in lines]
    return [row for row in rows if re.match(first, row[0])]


def test_the_readme_has_the_primary_claims_of_the_report():
    report = (ROOT / "docs/report.md").read_text().split("\n## Verdicts\n")[1]
    expected = _cells(report.split("\n## ")[0], r"P\d\.")
    assert len(expected) >= 6
    assert _cells((ROOT / "README.md").read_text(), r"P\d\.") == expected


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


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
def test_no_text_becomes_a_row_of_a_table(document):
    assert not re.search(r"^\|.*\|\n[^|\n`]", document.read_text(), re.M)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_is_left_to_fill_in(document):
    assert not re.search(r"^[A-Z_]{4,}$", document.read_text(), re.M)
