"""Stores trained models: one folder per run, complete once it has its provenance.

The provenance has digests of what training wrote. A finished run that does not match
them is refused. Earlier runs have none: they are used unverified. Runs that the command
`restore` made have a file of parameters in place of a checkpoint.
"""

import functools
import math
import os
import pathlib
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import absum_jax
from experiments.config import RunConfig
from experiments.data import recorded
from experiments.jobs import digests, files, machine, processes
from experiments.jobs.errors import UsageError
from experiments.models import Variables
from experiments.training import checkpoints, weights
from experiments.training.tensorboard import Curves

_PACKAGES = ("jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "numpy")
_ROOT = pathlib.Path(__file__).parents[2]
# The provenance of finished runs whose files this process has checked, by folder.
_CHECKED: dict[pathlib.Path, dict[str, Any]] = {}

_AGAIN = checkpoints.AGAIN.capitalize() + "."
# Errors that do not mean damage when a checkpoint is read.
_OF_THE_SYSTEM = (MemoryError, OSError, jax.errors.JaxRuntimeError)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


@functools.cache
def _code() -> dict[str, Any]:
    """Describes the code when it is first asked for: later it may not be what runs."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(changes) if changes is not None else None,
        "python": platform.python_version(),
        "absum_jax": absum_jax.__version__,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
    }


@functools.cache
def _machine() -> dict[str, Any]:
    """Describes the machine."""
    return {
        "cpu_cores": os.cpu_count(),
        "cpu_model": machine.cpu_model(),
        "platform": platform.platform(),
    }


def provenance() -> dict[str, Any]:
    """Describes what makes results here: commit, versions, device.

    Commit and versions are those of the first call in the process.
    """
    return {
        **_code(),
        "backend": jax.default_backend(),
        # None is the device's default.
        "matmul_precision": jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
        "x64": jax.config.jax_enable_x64,  # type: ignore[attr-defined]
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        **_machine(),
    }


class Run:
    """The folder of one trained model, below that of all runs."""

    def __init__(self, runs_dir: pathlib.Path, config: RunConfig):
        self.config = config
        self.runs_dir = runs_dir
        self.folder = runs_dir / config.path
        self._config = self.folder / "config.json"
        self._metrics = self.folder / "metrics.jsonl"
        self._diagnostics = self.folder / "diagnostics.jsonl"
        self._checkpoint = self.folder / "checkpoint"
        self._parameters = self.folder / weights.OF_A_RUN
        self._provenance = self.folder / "provenance.json"
        self._logs = self._config, self._metrics, self._diagnostics
        self._curves: Curves | None = None

    @property
    def is_complete(self) -> bool:
        """Returns whether the model is trained; its provenance is written last.

        Raises a `UsageError` if a file of a finished run is damaged or missing.
        """
        return self._finished() is not None

    @property
    def is_record(self) -> bool:
        """Returns whether it is a record, which must not be added to."""
        return files.exists(recorded.file_of(self.runs_dir, self.config.dataset))

    @property
    def provenance(self) -> dict[str, Any]:
        """Reads what made the parameters; empty for a run that is not complete."""
        return self._finished() or {}

    @property
    def parameters_digest(self) -> str | None:
        """Reads the digest of the parameters; None before the end, or in old runs."""
        return self.provenance.get("digests", {}).get("parameters")

    def _finished(self) -> dict[str, Any] | None:
        """Reads the provenance, and checks the files by it; None before the end."""
        if self.folder in _CHECKED:
            return _CHECKED[self.folder]
        provenance = self._read(files.read_json_if_there, self._provenance)
        if provenance is None:
            return None
        if not self._is_whole(self._provenance, provenance) or not isinstance(
            expected := provenance.get("digests", {}), dict
        ):
            raise self._damaged(self._provenance, "is not as training left it")
        if expected:
            for name, found in digests.of_files(self._logs).items():
                if found != expected.get(name):
                    how = "is not as training left it" if found else "is missing"
                    raise self._damaged(self.folder / name, how)
        # All digests match in folders that were copied or swapped as a whole.
        config = self._read(files.read_json, self._config)
        if config != self.config.as_dict():
            raise self._damaged(self._config, "is that of another model")
        _CHECKED[self.folder] = provenance
        return provenance

    def refuse_trained(self) -> None:
        """Refuses trained parameters whose provenance is lost."""
        if files.exists(self._checkpoint):
            raise self._damaged(self._provenance, "is missing")

    def _damaged(
        self, path: pathlib.Path, how: str, fix: str | None = None
    ) -> UsageError:
        fix = fix or f"Remove the folder {self.folder} to have the model trained again."
        if self.is_record:
            fix = "Restore the record, or make it again with the command record."
        return UsageError(f"{path} {how}: the run is damaged. {fix}")

    def begin(self, epoch: int, *, tensorboard: bool = False) -> None:
        """Writes the configuration, and removes what was logged after an epoch.

        Logs for TensorBoard too, if asked to, until `close`.
        """
        files.write_json(self._config, self.config.as_dict())
        for path, lines in self.logged(epoch).items():
            whole = [self._with_checksum(path, line) for line in lines]
            files.write_json_lines(path, whole)
        if tensorboard and processes.is_first():
            self._curves = Curves(self.folder / "tensorboard", epoch)

    def logged(self, epoch: int) -> dict[pathlib.Path, list[dict[str, Any]]]:
        """Reads the lines that were logged until the end of an epoch, by file."""
        logged = {}
        for path in (self._metrics, self._diagnostics):
            # Lines that are not needed may be damaged.
            lines = self._lines(path, _AGAIN) if epoch else []
            epochs = [line.get("epoch") for line in lines]
            # The first epochs may be older than this file.
            until = epochs.index(epoch) + 1 if epoch in epochs else 0
            consecutive = list(range(epoch - until + 1, epoch + 1))
            if epochs[:until] != consecutive or until < min(epoch, 1):
                raise self._damaged(path, f"lacks epochs up to {epoch}", _AGAIN)
            logged[path] = lines[:until]
        return logged

    def close(self) -> None:
        """Closes what `begin` opened."""
        if self._curves is not None:
            self._curves.close()
            self._curves = None

    def log(
        self, epoch: int, loss: float, accuracy: float, diverged_at: int = 0
    ) -> None:
        """Appends the metrics of one epoch; a loss that is not finite is null.

        `diverged_at` is the step of training that was not finite, 0 if there was none.
        """
        line: dict[str, Any] = {
            "epoch": epoch,
            "train_loss": loss if math.isfinite(loss) else None,
            "train_accuracy": accuracy,
        }
        if diverged_at:
            line["diverged_at_step"] = diverged_at
        self._append(self._metrics, line)
        if self._curves is not None:
            self._curves.add(epoch, train_loss=loss, train_accuracy=accuracy)

    @property
    def has_diverged(self) -> bool:
        """Returns whether training stopped at a step that was not finite."""
        return any("diverged_at_step" in line for line in self.metrics()[-1:])

    def metrics(self) -> list[dict[str, Any]]:
        """Reads the metrics of all epochs so far."""
        return self._lines(self._metrics)

    def log_diagnostics(self, line: dict[str, Any]) -> None:
        """Appends a line of `diagnostics.Recorder` after an epoch."""
        self._append(self._diagnostics, line)

    def diagnostics(self) -> list[dict[str, Any]]:
        """Reads the diagnostics of the epochs so far, where they were logged."""
        return self._lines(self._diagnostics)

    def _owner(self, path: pathlib.Path) -> str:
        """Returns a file's name for checksums, as other runs have the same files."""
        return (self.config.path / path.name).as_posix()

    def _with_checksum(
        self, path: pathlib.Path, content: dict[str, Any]
    ) -> dict[str, Any]:
        return digests.with_checksum(content, self._owner(path))

    def _is_whole(self, path: pathlib.Path, content: Any) -> bool:
        """Returns whether what was read from JSON is what was written to a file."""
        owner = self._owner(path)
        return isinstance(content, dict) and digests.is_whole(content, owner)

    def _append(self, path: pathlib.Path, line: dict[str, Any]) -> None:
        files.append_json_line(path, self._with_checksum(path, line))

    def _read(
        self, read: Callable[[pathlib.Path], Any], path: pathlib.Path,
        fix: str | None = None,
    ) -> Any:  # fmt: skip
        """Reads JSON; a damaged file is reported with what to do about the run."""
        try:
            return read(path)
        except UsageError as error:
            raise self._damaged(path, "is no JSON", fix) from error

    def _lines(
        self, path: pathlib.Path, fix: str | None = None
    ) -> list[dict[str, Any]]:
        lines = self._read(files.read_json_lines, path, fix)
        if not all(self._is_whole(path, line) for line in lines):
            raise self._damaged(path, "is not as training left it", fix)
        return [
            {name: value for name, value in line.items() if name != "checksum"}
            for line in lines
        ]

    def finish(self, variables: Variables, provenance: dict[str, Any]) -> None:
        """Writes the trained network, and then the provenance with all digests."""
        checkpoints.save_arrays(self._checkpoint, variables)
        found = digests.of_files(self._logs)
        found["checkpoint"] = digests.of_folder(self._checkpoint)
        found["parameters"] = digests.of_arrays(variables)
        files.sync(self.folder)
        whole = self._with_checksum(self._provenance, provenance | {"digests": found})
        files.write_json(self._provenance, whole)
        _CHECKED.pop(self.folder, None)

    def copy(
        self, runs_dir: pathlib.Path, evaluations: Iterable[str],
        parameters: weights.Model | None = None,
    ) -> "Run":  # fmt: skip
        """Copies what describes the run to another folder of runs or records.

        Args:
          runs_dir: the other folder.
          evaluations: names of files of evaluations, which are copied too.
          parameters: those of the trained network, to be written in place of a
            checkpoint.

        Returns:
          The copy. Its provenance is written last.
        """
        run = Run(runs_dir, self.config)
        if parameters is not None:
            weights.write(run._parameters, [parameters])
        names = [path.name for path in self._logs]
        for name in (*names, *evaluations, self._provenance.name):
            if (source := self.folder / name).exists():
                data = source.read_bytes()
                files.write_atomically(
                    run.folder / name,
                    lambda stream, data=data: stream.write(data),  # type: ignore[misc]
                )
        return run

    def _restored(self, abstract: Variables) -> Variables:
        """Loads the network from the file of parameters in place of a checkpoint."""

        def load() -> Variables:
            [model] = weights.read(self._parameters, abstract)
            return model.variables

        variables: Variables = processes.on_all_processes(load)
        if digests.of_arrays(variables) != self.parameters_digest:
            raise self._damaged(self._parameters, "has other parameters")
        return variables

    def variables(self, abstract: Variables) -> Variables:
        """Loads the trained network, given its shapes.

        Raises:
          UsageError: if the checkpoint is damaged or missing.
        """
        if not files.exists(self._checkpoint) and files.exists(self._parameters):
            return self._restored(abstract)
        expected = self.provenance.get("digests", {})
        changed = self._damaged(self._checkpoint, "is not as training left it")
        # Checked before orbax loads it, whose threads would print tracebacks.
        found = digests.of_folder(self._checkpoint)
        if expected.get("checkpoint", found) != found:
            raise changed
        try:
            variables = checkpoints.load_arrays(self._checkpoint, abstract)
        except Exception as error:  # TensorStore's errors are of many types
            is_missing = isinstance(error, FileNotFoundError)
            is_of_system = isinstance(error, _OF_THE_SYSTEM) and not is_missing
            if "checkpoint" in expected or is_of_system:
                raise
            first, *_ = str(error).splitlines() or [type(error).__name__]
            how = f"cannot be read ({first[:200]})"
            raise self._damaged(self._checkpoint, how) from error
        found = digests.of_arrays(variables)
        if expected.get("parameters", found) != found:
            raise changed
        return variables


def stacked_variables(runs: Sequence[Run], abstract: Variables) -> Variables:
    """Loads the networks of several runs, stacked along a new first axis."""
    loaded = [jax.tree.map(np.asarray, run.variables(abstract)) for run in runs]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *loaded)
