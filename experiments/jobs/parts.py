"""One sweep divided among processes that need not communicate."""

import dataclasses
import re
from typing import NamedTuple

from experiments.jobs.errors import UsageError


class Part(NamedTuple):
    """One of several parts of the models of a sweep."""

    number: int  # from 1
    parts: int

    def __str__(self) -> str:
        """Formats the part like the option, such as `2/4`."""
        return f"{self.number}/{self.parts}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Parses the option `--part`; inverse of `str`."""
        found = re.fullmatch("([0-9]+)/([0-9]+)", text)
        part = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= part.number <= part.parts:
            raise UsageError(
                f"--part must be K/N with K in 1..N, such as 2/4, got {text!r}."
            )
        return part

    def members(self, seeds: int, settings: int, *, together: bool) -> list[int]:
        """Chooses the models of this part; each model is in exactly one part.

        Models that share a program (`together`) are divided by setting if there are at
        least as many settings as parts, so that a part trains all seeds of its settings
        in one program. Otherwise models are assigned round-robin. Returns indices into
        the list of all models, which goes seed by seed; not empty.
        """
        models = seeds * settings
        if self.parts > models:
            raise UsageError(
                f"--part {self}: {models} {'model is' if models == 1 else 'models are'}"
                f" too few for {self.parts} parts."
            )
        row = settings if together and settings >= self.parts else models
        return [i for i in range(models) if i % row % self.parts == self.number - 1]


@dataclasses.dataclass(frozen=True)
class DivisionOptions:
    """How a sweep is divided among machines."""

    part: str | None = None
    """Train and evaluate only one part of the models, such as 2/4, the second of four
    parts. Parts may run at the same time, on one machine or many that share the runs
    folder. Afterwards run the same command without --part to make the table."""

    def __post_init__(self) -> None:
        """Refuses invalid parts."""
        _ = self.selected

    @property
    def selected(self) -> Part | None:
        """Returns the part to work on; None is all of the sweep."""
        return None if self.part is None else Part.parse(self.part)
