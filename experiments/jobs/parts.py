"""One sweep divided among processes that need not know of each other."""

import dataclasses
import re
from typing import NamedTuple

from experiments.jobs.errors import UsageError


class Part(NamedTuple):
    """One of several parts of the models of a sweep."""

    number: int  # from 1
    parts: int

    def __str__(self) -> str:
        """As the option has it."""
        return f"{self.number}/{self.parts}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """The inverse of `str`.

        Raises:
          UsageError: if the text is no part.
        """
        found = re.fullmatch("([0-9]+)/([0-9]+)", text)
        part = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= part.number <= part.parts:
            raise UsageError(
                f"--part must be K/N with K in 1..N, such as 2/4, got {text!r}."
            )
        return part

    def members(self, seeds: int, settings: int, *, together: bool) -> list[int]:
        """Which models are in this part; each is in exactly one.

        Models that share a program are divided by their settings where there are as
        many as parts, so that a part has all seeds of its own settings in one program.
        Others are dealt out one by one.

        Args:
          seeds: how many seeds there are.
          settings: how many settings; each seed trains them all.
          together: whether models share a program.

        Returns:
          Places in the list of all models, which goes seed by seed; not empty.

        Raises:
          UsageError: if there are fewer models than parts.
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
    """Train and evaluate one part of the models alone, such as 2/4, the second of four.
    Parts may run at the same time, on one machine or many; the same command without
    --part then makes the table of what they leave in the runs folder."""

    def __post_init__(self) -> None:
        """Refuses what is no part."""
        _ = self.own

    @property
    def own(self) -> Part | None:
        """This process's part; None is all of it."""
        return None if self.part is None else Part.parse(self.part)
