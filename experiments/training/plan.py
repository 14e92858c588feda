"""Plans which sweeps train what is missing, and from which checkpoint each resumes."""

import hashlib
import itertools
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.config import Recipe, RunConfig, Setting
from experiments.jobs import files
from experiments.jobs.errors import damage_named

_MEMBERS = "members.json"


def in_progress(config: RunConfig) -> pathlib.Path:
    """Returns the folder, below that of all runs, of sweeps of such models."""
    return pathlib.Path(config.dataset, config.model, "in-progress")


class Sweep(NamedTuple):
    """A rectangle of models that train in one program, seeds by settings."""

    configs: tuple[tuple[RunConfig, ...], ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Returns the seed of each row."""
        return tuple(row[0].seed for row in self.configs)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Returns the setting of each column."""
        return tuple(config.setting for config in self.configs[0])

    @property
    def members(self) -> tuple[RunConfig, ...]:
        """Returns all models, row by row."""
        return tuple(itertools.chain.from_iterable(self.configs))

    @property
    def recipe(self) -> Recipe:
        """Returns how all of them are trained."""
        return self.members[0].recipe

    @property
    def path(self) -> pathlib.Path:
        """Returns the sweep's folder while it trains, below that of all runs."""
        paths = "\n".join(str(config.path) for config in self.members)
        digest = hashlib.sha256(paths.encode()).hexdigest()[:12]
        return in_progress(self.members[0]) / digest


class Unfinished(NamedTuple):
    """A sweep that was interrupted after some steps."""

    folder: pathlib.Path
    sweep: Sweep
    steps: int


class Task(NamedTuple):
    """A sweep to train, and the unfinished one to resume its models from."""

    sweep: Sweep
    source: Unfinished | None


def save_members(folder: pathlib.Path, sweep: Sweep) -> None:
    """Records which models a sweep's folder holds."""
    rows = [[config.as_dict() for config in row] for row in sweep.configs]
    files.write_json(folder / _MEMBERS, rows)


def load_members(folder: pathlib.Path) -> Sweep | None:
    """Reads which models a sweep's folder holds.

    Returns None if it was interrupted before they were recorded, or another process
    removes it. Raises a `UsageError` if the file is damaged, or of another version.
    """
    path = folder / _MEMBERS
    fix = f"remove {folder}"
    rows = files.read_json_if_there(path, fix)
    if rows is None:
        return None
    with damage_named(path, fix):
        sweep = Sweep(tuple(tuple(map(RunConfig.from_dict, row)) for row in rows))
        if sweep.path.name != folder.name or rectangles(sweep.members) != [sweep]:
            raise ValueError("it is of other models than the folder")
        return sweep


def rectangles(configs: Iterable[RunConfig]) -> list[Sweep]:
    """Groups models into rectangles: seeds with the same settings go together."""
    by_seed: dict[int, list[RunConfig]] = {}
    for config in configs:
        by_seed.setdefault(config.seed, []).append(config)
    by_settings: dict[tuple[Setting, ...], list[tuple[RunConfig, ...]]] = {}
    for row in by_seed.values():
        settings = tuple(config.setting for config in row)
        by_settings.setdefault(settings, []).append(tuple(row))
    return [Sweep(tuple(rows)) for rows in by_settings.values()]


def plan(
    missing: Sequence[RunConfig], unfinished: Iterable[Unfinished], *,
    together: bool = True,
) -> list[Task]:  # fmt: skip
    """Divides missing models into sweeps, each resumed from one checkpoint or none.

    The models are alike but for seed and setting. Unless they train together in one
    program, each is a sweep by itself. Sweeps that have come furthest are first.
    """

    def sweeps(configs: Sequence[RunConfig]) -> list[Sweep]:
        return rectangles(configs) if together else [Sweep(((c,),)) for c in configs]

    tasks = []
    left = list(missing)
    for source in sorted(unfinished, key=lambda u: -u.steps):
        members = set(source.sweep.members)
        found = [config for config in left if config in members]
        left = [config for config in left if config not in members]
        tasks += [Task(sweep, source) for sweep in sweeps(found)]
    return tasks + [Task(sweep, None) for sweep in sweeps(left)]
