"""Steps of training on virtual devices and real processes of this machine, timed."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.scaling import program
from benchmarks.timing import median_seconds

DEVICES = 1, 2, 4, 8
_ROUNDS = 3


class Machines(NamedTuple):
    """On what a step is taken."""

    processes: int
    devices: int  # of all of them


def _environment(devices: int) -> dict[str, str]:
    """That of a process with so many virtual devices."""
    own = f"--xla_force_host_platform_device_count={devices}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {own}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class _Running:
    """Processes that take steps together, each time they are told to.

    Args:
      work: which steps, as `program` calls them.
      machines: how many processes, and devices.
    """

    def __init__(self, work: str, machines: Machines):
        count, port = machines.processes, _free_port()
        self._processes = []
        for i in range(count):
            joining = [
                "--distributed", "--coordinator", f"127.0.0.1:{port}",
                "--num-processes", str(count), "--process-id", str(i),
            ]  # fmt: skip
            process = subprocess.Popen(
                [
                    sys.executable, "-m", program.__name__, "--work", work,
                    *(joining if count > 1 else []),
                ],
                env=_environment(machines.devices // count), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            self._processes.append(process)

    def wait(self) -> None:
        """Waits until the first process has done what it was told to.

        Raises:
          RuntimeError: if it has ended instead.
        """
        said = self._processes[0].stdout
        assert said is not None
        # gloo has something to say too.
        if not any(line.strip() in program.ANSWERS for line in said):
            raise RuntimeError("a process ended; what it wrote above says why.")

    def __call__(self) -> None:
        """Takes the steps once."""
        for process in self._processes:
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        self.wait()

    def close(self) -> None:
        """Ends the processes, which have nothing to lose."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            # Waits, and closes the pipes.
            process.__exit__(None, None, None)


@contextlib.contextmanager
def _running(work: str, machines: Machines) -> Iterator[_Running]:
    with contextlib.closing(_Running(work, machines)) as running:
        # One after the other, as each compiles on all cores.
        running.wait()
        yield running


def seconds_of(work: str) -> dict[Machines, float]:
    """The median seconds of some steps, on each number of devices and processes.

    All are started first, and then take turns.

    Args:
      work: "resnet" or "sweep".
    """
    machines = [
        Machines(processes, devices)
        for processes in (1, 2)
        for devices in DEVICES
        if devices >= processes
    ]
    with contextlib.ExitStack() as stack:
        candidates = {
            f"{m.processes} {m.devices}": stack.enter_context(_running(work, m))
            for m in machines
        }
        seconds = median_seconds(candidates, _ROUNDS)
    return dict(zip(machines, seconds.values(), strict=True))
