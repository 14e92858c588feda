"""Describes the machine that a program runs on."""

import os
import pathlib
import platform
import re


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_model(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Returns the name of the CPU with its numbers, or its architecture without a name.

    Virtual machines may shorten the names of different CPUs to the same one, but not
    their family and model numbers.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    field = r"^(model name|cpu family|model)[ \t]*:[ \t]*(.*\S)"
    # Of several processors the first counts.
    of_first = dict(reversed(re.findall(field, text, re.MULTILINE)))
    name = of_first.get("model name") or platform.processor() or platform.machine()
    if not {"cpu family", "model"} <= of_first.keys():
        return name
    return f"{name} (family {of_first['cpu family']}, model {of_first['model']})"
