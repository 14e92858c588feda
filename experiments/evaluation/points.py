"""The file of one evaluation in a run's folder, a line for each point.

The first line states what is evaluated and the digest of the parameters, and each line
has a checksum. Lines that are damaged, or of other parameters, count as missing. Before
the points that a command computes there is a line of their provenance.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError, damage_named
from experiments.training.runs import Run, provenance

# A part of an evaluation, such as an eps or a row of frequencies.
Point = int | float | str
Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What determines the evaluation of a trained model."""

    attack: str
    split: str  # "test" or "validation"
    examples: int
    data_fingerprint: str
    conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Returns the name of the file in a run's folder, made from all of this."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.attack}-{digest}.jsonl"


def _parsed(text: str, *, is_verified: bool) -> Line | None:
    """Returns a line without its checksum; None if it is damaged.

    A verified line must have a checksum; earlier versions wrote none.
    """
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    may_lack = not is_verified
    if not isinstance(line, dict) or not digests.is_whole(line, may_lack=may_lack):
        return None
    line.pop("checksum", None)
    return line


# Stands for a damaged line, which may be that of the provenance of the points after it.
_DAMAGED: Line = {"provenance": None}


class UnevaluatedError(UsageError):
    """Says that a record lacks what an evaluation would compute."""


class Points:
    """The file of an evaluation of a trained run, in its folder or another one."""

    def __init__(
        self, run: Run, evaluation: Evaluation, folder: pathlib.Path | None = None
    ):
        self.path = (folder or run.folder) / evaluation.name
        self._header = dataclasses.asdict(evaluation)
        self._is_record = run.is_record
        digest = run.parameters_digest
        self._is_verified = digest is not None
        if digest is not None:
            self._header["parameters"] = digest

    def read(self) -> list[Line]:
        """Reads the lines of points that are not damaged."""
        return [line for line in self._lines() or () if "point" in line]

    def is_whole(self) -> bool:
        """Checks whether no line is damaged, or of other parameters."""
        lines = self._lines()
        return lines is not None and not any(line is _DAMAGED for line in lines)

    def _lines(self) -> list[Line] | None:
        """Reads the lines after the first; None if they are of other parameters."""
        texts = files.read_lines(self.path)
        lines = [_parsed(text, is_verified=self._is_verified) for text in texts or ()]
        if self._is_record and None in lines:
            raise UsageError(
                self._unusable(f"is damaged in line {lines.index(None) + 1}")
            )
        if lines[:1] != [json.loads(json.dumps(self._header))]:
            return None
        return [
            line if line and ("point" in line or "provenance" in line) else _DAMAGED
            for line in lines[1:]
        ]

    def begin(self) -> None:
        """Prepares the file for more points, which this process computes."""
        if self._is_record:
            raise UnevaluatedError(self._unusable("lacks lines that are needed"))
        if files.read_lines(self.path) and not self.is_whole():
            print(f"{self.path}: damaged lines are computed again")
        lines = self._lines() or []
        made_by = {"provenance": provenance()}
        if [line for line in lines if "provenance" in line][-1:] != [made_by]:
            lines.append(made_by)
        lines.insert(0, self._header)
        files.write_json_lines(self.path, map(digests.with_checksum, lines))

    def _unusable(self, how: str) -> str:
        return (
            f"{self.path} {how}, and records have no parameters to evaluate: restore "
            "the file, record the model again once it is evaluated, or give the "
            "--runs-dir of the models, which the command restore can make."
        )

    def append(self, line: Line) -> None:
        """Appends the line of a point."""
        files.append_json_line(self.path, digests.with_checksum(line))


def stored(run: Run) -> Iterator[tuple[Evaluation, list[Line]]]:
    """Reads the evaluations of a run by name, and refuses damaged ones."""
    fields = {field.name for field in dataclasses.fields(Evaluation)}
    for path in sorted(run.folder.glob("*-*.jsonl")):
        texts = files.read_lines(path) or [""]
        with damage_named(path, "give the command that made it again, or remove it"):
            header = json.loads(texts[0])
            evaluation = Evaluation(**{name: header[name] for name in fields})
            if evaluation.name != path.name:
                raise ValueError("it is that of another evaluation")
            points = Points(run, evaluation)
            if not points.is_whole():
                raise ValueError("lines are damaged, or of other parameters")
        yield evaluation, points.read()
