"""Runs the Python examples of a document, and compares what they print with its text.

`python docs/examples.py README.md` does so with the packages of this clone.
"""

import contextlib
import io
import os
import pathlib
import re
import sys
import time

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")

# Accuracies in percent may differ by a few images, where logits differ by rounding.
POINTS = 3.0


def outputs(text: str) -> list[tuple[str, str]]:
    """Runs all Python blocks of a Markdown text, in order, with common names.

    Returns:
      For each block with text after it, what the block printed and what that text says.
    """
    names: dict[str, object] = {"__name__": "example"}
    printed = ""
    pairs = []
    for kind, block in re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            stream = io.StringIO()
            with contextlib.redirect_stdout(stream):
                exec(block, names)
            printed = stream.getvalue().strip()
        elif printed:
            pairs.append((printed, block.strip()))
            printed = ""
    return pairs


def differences(printed: str, said: str) -> list[str]:
    """Compares outputs line by line: percentages roughly, everything else exactly.

    Percentages are numbers before a percent sign, and the last two columns of reports.

    Returns:
      The lines that differ.
    """
    lines = printed.splitlines(), said.splitlines()
    if len(lines[0]) != len(lines[1]):
        return [f"{len(lines[0])} lines instead of {len(lines[1])}"]
    percent = r"\d+\.\d\d(?= to | \|$|  *\|  *\d+\.\d\d to )|\d+(?= %)"
    different = []
    for line, expected in zip(*lines, strict=True):
        found, wanted = re.findall(percent, line), re.findall(percent, expected)
        alike = len(found) == len(wanted) and all(
            abs(float(a) - float(b)) <= POINTS
            for a, b in zip(found, wanted, strict=True)
        )
        rest = (re.sub(rf" *({percent})", "#", each) for each in (line, expected))
        if not alike or len(set(rest)) != 1:
            different.append(f"{line!r} instead of {expected!r}")
    return different


def main() -> int:
    """Runs the documents named on the command line; returns the exit code."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    code = 0
    for name in sys.argv[1:]:
        started = time.monotonic()
        pairs = outputs(pathlib.Path(name).read_text(encoding="utf-8"))
        for difference in (line for pair in pairs for line in differences(*pair)):
            print(f"{name}: {difference}")
            code = 1
        if pairs:
            seconds = time.monotonic() - started
            print(f"{name}: {len(pairs)} outputs compared, {seconds:.0f} s", flush=True)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
