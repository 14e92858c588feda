"""How a process joins the others."""

import contextlib
import dataclasses
import os
import socket
import sys
import time

from experiments.jobs.agreement import is_first
from experiments.jobs.errors import UsageError

_SECONDS_BETWEEN_TRIES = 0.2


@dataclasses.dataclass(frozen=True)
class HostOptions:
    """Which processes work together."""

    distributed: bool = False
    """Work together with processes that run the same command, one for each host or
    device: on the devices of all of them, with files written by the first. The folders
    of runs and results must be the same ones for all. On Slurm, Open MPI, Kubernetes
    and TPU pods the processes find each other; elsewhere the next three options say
    how."""

    coordinator: str | None = None
    """HOST:PORT at which the first process is reached, the same for all."""

    num_processes: int | None = None
    """How many processes there are."""

    process_id: int | None = None
    """Which of them this is, from 0."""

    join_seconds: int = 300
    """How long to wait for the others to come."""

    heartbeat_seconds: int = 45
    """After so long without a sign of life a process is taken for dead."""

    def __post_init__(self) -> None:
        """Refuses options that do not fit each other."""
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
                    "give all three, or none where the cluster tells them."
                )
        for name in ("join_seconds", "heartbeat_seconds"):
            if getattr(self, name) < 1:
                option = "--" + name.replace("_", "-")
                raise UsageError(
                    f"{option} must be at least 1, got {getattr(self, name)}."
                )
        if self.num_processes is not None and self.num_processes < 1:
            raise UsageError(
                f"--num-processes must be at least 1, got {self.num_processes}."
            )
        if self.process_id is not None:
            count = self.num_processes or 0
            if not 0 <= self.process_id < count:
                raise UsageError(
                    f"--process-id must lie in 0..{count - 1}, got {self.process_id}."
                )
        if self.coordinator is not None:
            _address(self.coordinator)

    def join(self) -> None:
        """Joins the other processes; nothing where there are none.

        To be called before anything else asks for devices. Of all processes the first
        one alone has a standard output from then on.

        Raises:
          UsageError: if there is no cluster to be found, or the first process cannot be
            reached.
        """
        if not self.distributed:
            return
        # Late, as a command line that asks for help needs no jax.
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
        """Tries the address, whose failure ends a process within jax."""
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
    """Host and port.

    Raises:
      UsageError: if it is not HOST:PORT.
    """
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator must be HOST:PORT, got {coordinator!r}.")
    return host.strip("[]"), int(port)
