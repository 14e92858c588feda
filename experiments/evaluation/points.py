"""The file of one evaluation in a run's folder, a line for each point.

The first line states what is evaluated and the digest of the parameters, and each line
has a checksum. Lines that are damaged, or of other parameters, count as missing.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.jobs import digests, files
from experiments.jobs.errors import UsageError, damage_named
from experiments.training.runs import Run

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


class UnevaluatedError(UsageError):
    """Says that a record lacks what an evaluation would compute."""


class Points:
    """The file of an evaluation of a trained run."""

    def __init__(self, run: Run, evaluation: Evaluation):
        self.path = run.folder / evaluation.name
        self._header = dataclasses.asdict(evaluation)
        self._is_record = run.is_record
        digest = run.parameters_digest
        self._is_verified = digest is not None
        if digest is not None:
            self._header["parameters"] = digest

    def read(self) -> list[Line]:
        """Reads the lines of points that are not damaged."""
        texts = files.read_lines(self.path)
        lines = [_parsed(text, is_verified=self._is_verified) for text in texts or ()]
        if self._is_record and None in lines:
            raise UsageError(
                self._unusable(f"is damaged in line {lines.index(None) + 1}")
            )
        if lines[:1] != [json.loads(json.dumps(self._header))]:
            return []
        return [line for line in lines if line is not None and "point" in line]

    def begin(self) -> None:
        """Prepares the file for more lines, and drops damaged ones."""
        if self._is_record:
            raise UnevaluatedError(self._unusable("lacks lines that are needed"))
        known = self.read()
        if dropped := len(files.read_lines(self.path) or [0]) - 1 - len(known):
            print(f"{self.path}: {dropped} damaged lines are computed again")
        lines = [self._header, *known]
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
            lines = Points(run, evaluation).read()
            if len(lines) != len(texts) - 1:
                raise ValueError("lines are damaged, or of other parameters")
        yield evaluation, lines
