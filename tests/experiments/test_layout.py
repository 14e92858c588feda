"""Folders import in one direction, and no command imports another."""

import ast
import pathlib

import pytest

from experiments import cli

ROOT = pathlib.Path(cli.__file__).parents[1]
# A module imports what comes before its folder, or is in it; modules beside the folders
# are such by themselves.
ORDER = (
    "xla_flags", "jobs", "names", "composed", "arguments", "cli", "config",
    "statistics", "methods", "data", "published", "compiled", "models", "training",
    "options", "evaluation", "runtimes", "workspace", "trained", "adversaries",
    "reporting", "studies", "reproduce", "claims", "report", "tables", "figures",
    "train", "evaluate", "record", "restore", "demo", "supervision", "__main__",
)  # fmt: skip
# The demo is Table 1 with a picture.
IMPORTED_COMMANDS = {("demo", "tables.table1")}


def _modules():
    """Every module by its name below `experiments`."""
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        parts = path.relative_to(ROOT / "experiments").with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            yield name, path


MODULES = dict(_modules())


def _imported(path):
    """The modules of `experiments` that a file names in its imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            below = name.removeprefix("experiments.")
            if below == name:
                continue
            yield below if below in MODULES else below.rpartition(".")[0]


def test_every_folder_has_its_place():
    assert {name.partition(".")[0] for name in MODULES} == set(ORDER)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_in_one_direction(name):
    own = ORDER.index(name.partition(".")[0])
    for other in _imported(MODULES[name]):
        assert ORDER.index(other.partition(".")[0]) <= own, other
        if name.startswith("reporting.") and "plots" not in name:
            assert not other.startswith("reporting.plots"), other


def test_no_command_imports_another():
    commands = {module for module, _ in cli._COMMANDS.values()}
    found = {
        (name, other)
        for name in commands
        for other in _imported(MODULES[name])
        if other in commands
    }
    assert found == IMPORTED_COMMANDS


def test_files_of_tests_have_names_of_their_own():
    """Two of one name in different folders cannot be collected in one run."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
