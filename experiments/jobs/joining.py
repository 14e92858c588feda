"""How a process joins the other processes of a run."""

import contextlib
import dataclasses
import os
import socket
import sys
import time

from experiments.jobs.errors import UsageError
from experiments.jobs.processes import is_first

_SECONDS_BETWEEN_TRIES = 0.2


@dataclasses.dataclass(frozen=True)
class HostOptions:
    """How several processes work together."""

    distributed: bool = False
    """Work together with other processes that run the same command, one per host or
    device, on all their devices. Process 0 writes all files; the processes must share
    the folders of runs and results. On Slurm, Open MPI, Kubernetes and TPU pods the
    processes find each other; elsewhere also pass the next three options."""

    coordinator: str | None = None
    """HOST:PORT of process 0, the same for all processes."""

    num_processes: int | None = None
    """Number of processes."""

    process_id: int | None = None
    """Number of this process, counted from 0."""

    join_seconds: int = 300
    """Seconds to wait for the other processes to start."""

    heartbeat_seconds: int = 45
    """Seconds without a sign of life after which a process is considered dead."""

    def __post_init__(self) -> None:
        """Refuses options that do not fit together."""
        given = self.coordinator, self.num_processes, self.process_id
        if given != (None, None, None):
            if not self.distributed:
                raise UsageError(
                    "--coordinator, --num-processes and --process-id go with "
                    "--distributed."
                )
            if None in given:
                raise UsageError(
                    "--coordinator, --num-processes and --process-id go together; "
                    "give all three, or none on a cluster that provides them."
                )
        for name in ("join_seconds", "heartbeat_seconds", "num_processes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} must be at least 1, got {value}.")
        if self.coordinator is not None:
            _address(self.coordinator)
            count, number = self.num_processes or 0, self.process_id or 0
            if not 0 <= number < count:
                raise UsageError(
                    f"--process-id must lie in 0..{count - 1}, got {number}."
                )

    def join(self) -> None:
        """Joins the other processes, if there are any.

        Call it before anything asks for devices. It closes the standard output of all
        processes but process 0.
        """
        if not self.distributed:
            return
        # Imported here, as `--help` works without jax.
        import jax

        deadline = time.monotonic() + self.join_seconds
        if self.coordinator is not None:
            self._check_coordinator(self.coordinator, deadline)
        try:
            jax.distributed.initialize(
                self.coordinator,
                self.num_processes,
                self.process_id,
                initialization_timeout=max(1, round(deadline - time.monotonic())),
                heartbeat_timeout_seconds=self.heartbeat_seconds,
            )
        except ValueError as error:
            raise UsageError(
                "--distributed found no cluster that it knows; give --coordinator, "
                f"--num-processes and --process-id ({error})"
            ) from error
        if not is_first():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115

    def _check_coordinator(self, address: str, deadline: float) -> None:
        """Tries the address first: jax would abort the process if it fails."""
        host, port = _address(address)
        if self.process_id == 0:
            try:
                with socket.create_server(("", port)):
                    return
            except OSError as error:
                raise UsageError(
                    f"--coordinator {address}: cannot listen on port {port}: {error}."
                ) from error
        while True:
            try:
                with contextlib.closing(socket.create_connection((host, port), 5)):
                    return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise UsageError(
                        f"--coordinator {address} cannot be reached within "
                        f"{self.join_seconds} s: {error}. The process with "
                        "--process-id 0 has to run there."
                    ) from error
            time.sleep(_SECONDS_BETWEEN_TRIES)


def _address(coordinator: str) -> tuple[str, int]:
    """Splits HOST:PORT."""
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator must be HOST:PORT, got {coordinator!r}.")
    return host.strip("[]"), int(port)
