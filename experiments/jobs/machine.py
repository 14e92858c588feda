"""Describes the machine that a program runs on."""

import pathlib
import platform
import re


def cpu_model(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Returns the name of the CPU, or its architecture if the system has no name."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name[ \t]*:[ \t]*(.*\S)", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
