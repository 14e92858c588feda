"""Compares the numbers of this working tree with those of an earlier commit.

    python tests/compare_commits.py COMMIT [FOLDER]

runs every table and figure that the commit has on a few images with both, from nothing,
and with this tree once more on a copy of the commit's runs, where it must train nothing
and alter no file. Prints each difference and exits with 1 if there is any. Names of
folders and files, configurations, metrics, parameters, evaluations, tables and the
values of figures must be equal; times, and what is measured in them, need not. Takes
some five minutes a side.
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = ("--dataset", "mnist5k")
FEW = ("--epochs", "1", "--train-examples", "640")
TEST = ("--test-examples", "50")
STRIDE = ("--frequency-stride", "7")
METHODS = ("none", "weight_decay", "l1", "absum", "snc", "snc-numpy-axes")
SEEDS = ("--seeds", "0", "1")
AT_PAPER = (*FEW, *TEST, *STRIDE, "--select-on", "paper", "--methods", *METHODS, *SEEDS)
GRID = (*FEW, *TEST, *STRIDE, "--strengths", "1", "0.01", "--max-norms", "1", *SEEDS)
VALIDATED = ("--select-on", "validation", "--strengths", "0.1", "--max-norms", "10")

COMMANDS = {
    "train": ("train", *DATA, *FEW, "--methods", "absum", "--strengths", "0.5", *SEEDS),
    "evaluate": ("evaluate", *DATA, *AT_PAPER, "--diagnostics"),
    "table1-validation": (
        "table1", *DATA, *FEW, *TEST, *STRIDE, *VALIDATED, "--methods", "none", "absum",
    ),
    **{name: (name, *DATA, *AT_PAPER) for name in ("table1", "table2", "table3")},
    "table1-grid": ("table1", *DATA, *GRID),
    "table4": ("table4", *DATA, *AT_PAPER, "--train-steps", "2", "--test-steps", "3"),
    "figure1": ("figure1", *DATA),
    "figure3": ("figure3",),
    "figure6a": (
        "figure6a", "--datasets", "mnist", "--timed-steps", "20", "--repeats", "1",
    ),
    "figure6b": (
        "figure6b", "--sizes", "32", "--repeats", "1", "--methods", "none", "snc",
    ),
    "figure7": ("figure7", *DATA, *AT_PAPER),
    "figure8": ("figure8", *DATA, *FEW, "--seeds", "0"),
    "fourier-heatmaps": (
        "fourier-heatmaps", *DATA, *FEW, *TEST, "--select-on", "paper",
        "--methods", "none", "absum", "--seeds", "0",
    ),
    "frequencies": (
        "frequencies", *DATA, *FEW, *TEST, "--select-on", "paper",
        "--methods", "none", "absum", "--seeds", "0",
    ),
    "snc-readings": (
        "snc-readings", *DATA, *FEW, *TEST, "--methods", "none", "snc-numpy-axes",
        "--max-norms", "10", *SEEDS,
    ),
    "spectra": ("spectra", *DATA, *FEW, "--seeds", "0"),
    "diagnostics": ("diagnostics", *DATA, *FEW, "--diagnostics", "--seeds", "0"),
    "record": ("record", *DATA, *SEEDS),
    "claims": ("claims",),
    "models": ("models",),
    "demo": ("demo", "--epochs", "1"),
}  # fmt: skip
# The names of options before all commands had the same.
FORMER = {
    ("figure6a", "--timed-steps"): "--steps",
    ("snc-readings", "--methods"): "--readings",
    ("spectra", "--seeds"): "--seed",
    ("diagnostics", "--seeds"): "--seed",
}
# Commands that measure seconds; keys that tell of time, the commit or bytes of orbax.
TIMED = {"figure6a", "figure6b"}
VOLATILE = {"checkpoint", "checksum", "commit", "seconds", "uncommitted_changes"}


def known_to(code: pathlib.Path) -> dict[str, tuple[str, ...]]:
    """The commands that the code of a folder has."""
    listed = (code / "experiments" / "cli.py").read_text()
    return {
        n: command for n, command in COMMANDS.items() if f'"{command[0]}":' in listed
    }


def run_all(
    commands: dict[str, tuple[str, ...]], code: pathlib.Path, folder: pathlib.Path,
    compiled: pathlib.Path,
) -> None:  # fmt: skip
    """Runs commands with the code of a folder, and keeps what they print."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(code),
        "XDG_CACHE_HOME": str(compiled.parent / "cache"),
    }
    figure6a = (code / "experiments" / "figures" / "figure6a.py").read_text()
    for name, arguments in commands.items():
        if "timed-steps" not in figure6a:
            arguments = [FORMER.get((name, each), each) for each in arguments]
        if (folder / "printed" / name).exists():
            continue
        elsewhere = {
            "claims": ROOT / "results" / "records",
            "diagnostics": "runs/diagnosed",
        }
        runs = elsewhere.get(name, "runs")
        folders = [f"--runs-dir={runs}", f"--results-dir=results/{name}"]
        if name in ("train", "evaluate", "record"):
            folders = folders[:1]
        if name == "record":
            folders += ["--records-dir=records", "--weights-dir=weights"]
        if name in ("figure1", "figure3", "figure6a", "figure6b"):
            folders = folders[1:]
        if name == "models":
            folders = []
        done = subprocess.run(
            [sys.executable, "-m", "experiments", *arguments, *folders],
            cwd=folder, env=environment, text=True, capture_output=True,
        )  # fmt: skip
        print(f"{folder.name}: {name}", flush=True)
        if done.returncode:
            sys.exit(f"{name} failed in {folder}:\n{done.stdout}\n{done.stderr}")
        (folder / "printed").mkdir(exist_ok=True)
        (folder / "printed" / name).write_text(done.stdout)


def values(document: Any) -> Any:
    """A JSON document without what may differ."""
    if isinstance(document, dict):
        return {k: values(v) for k, v in document.items() if k not in VOLATILE}
    return [values(v) for v in document] if isinstance(document, list) else document


def contents(path: pathlib.Path) -> Any:
    """What must be equal in a file: all of it, or the values of its documents."""
    if path.suffix == ".json":
        return values(json.loads(path.read_text()))
    return path.read_bytes()


def differences(old: pathlib.Path, new: pathlib.Path) -> Iterator[str]:
    """Names the files below two folders that are not the same."""
    ours, theirs = (
        {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
        for root in (new, old)
    )
    # Files of checkpoints differ from write to write: provenance has their content.
    skipped = ("/checkpoint", "/lock", ".png", ".pdf", "printed/")
    names = {name for name in ours ^ theirs if "/checkpoint" not in name}
    yield from (f"only one has {name}" for name in sorted(names))
    for name in sorted(ours & theirs):
        timed = any(f"results/{each}/" in name for each in TIMED)
        if timed or any(part in name for part in skipped):
            continue
        if contents(old / name) != contents(new / name):
            yield f"{name} differs"


def digests(root: pathlib.Path) -> dict[str, str]:
    """Digests of all files below a folder but for locks."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "lock" not in path.name
    }


def main(commit: str, folder: str | None = None) -> int:
    """Compares, and returns the exit code."""
    place = pathlib.Path(folder or tempfile.mkdtemp()).resolve()
    code = place / "code"
    compiled = place / "compiled"
    for path in (code, compiled, place / "old", place / "new", place / "resumed"):
        path.mkdir(parents=True, exist_ok=True)
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", code], input=archive.stdout, check=True)
    commands = known_to(code)
    run_all(commands, code, place / "old", compiled)
    shutil.rmtree(place / "new")
    shutil.rmtree(place / "resumed")
    (place / "new").mkdir()
    (place / "resumed").mkdir()
    run_all(commands, ROOT, place / "new", compiled)
    shutil.copytree(place / "old" / "runs", place / "resumed" / "runs")
    before = digests(place / "resumed" / "runs")
    run_all(commands, ROOT, place / "resumed", compiled)
    after = digests(place / "resumed" / "runs")
    found = [f"new: {line}" for line in differences(place / "old", place / "new")]
    # All models are there when they are recorded, as later commands trained some.
    found += [
        f"resumed: {line}"
        for line in differences(place / "old", place / "resumed")
        if not line.removeprefix("only one has ").startswith(("records/", "weights/"))
    ]
    found += [
        f"resumed: {name} was altered"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    print("\n".join(found) or "no difference")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
