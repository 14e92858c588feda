"""Starts several real processes of one command, on this machine."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(
    arguments: list[str],
    *,
    count: int = 2,
    devices: int = 2,
    port: int | None = None,
    tiny: bool = False,
) -> list[subprocess.Popen]:
    """Starts processes of a Python command that work together.

    Args:
      arguments: of Python, the same for all; where they find each other is added.
      count: how many processes.
      devices: how many virtual devices each has.
      port: of the first one; None is a free one.
      tiny: whether a tiny network stands in for the small CNN.
    """
    port = port or free_port()
    own = f"--xla_force_host_platform_device_count={devices}"
    # The last one of a flag counts.
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {own}",
        # A process that is killed may leave a broken entry, hence none are kept.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "PYTHONPATH": str(ROOT),
    }
    if tiny:  # in the process that does the work
        here = pathlib.Path(__file__).parent
        paths = str(here / "tiny_site"), str(here), str(ROOT)
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return [
        subprocess.Popen(
            [
                sys.executable, *arguments, "--distributed", "--coordinator",
                f"127.0.0.1:{port}", "--num-processes", str(count), "--process-id",
                str(i),
            ],
            cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(count)
    ]  # fmt: skip


def outputs(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Waits for processes; the exit code, output and errors of each."""
    try:
        said = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, *texts)
        for process, texts in zip(processes, said, strict=True)
    ]


def end_well(processes: list[subprocess.Popen]) -> list[str]:
    """Waits for processes that have to succeed; what each has printed."""
    ended = outputs(processes)
    for code, _, errors in ended:
        assert code == 0, errors
    return [output for _, output, _ in ended]
