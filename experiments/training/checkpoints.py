"""Saves and loads trees of arrays, through orbax.

Several processes call these functions together, and orbax writes each array once.

A folder of checkpoints holds only whole ones: while one is written or removed it has
orbax's name for temporary ones, which orbax ignores, and removes in time.
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from experiments.jobs import digests, files, processes
from experiments.jobs.errors import damage_named
from experiments.training import devices

# What happens to models whose training cannot resume from its last step.
AGAIN = "training goes on from an earlier step or begins again"
_TEMPORARY = ".orbax-checkpoint-tmp"


@contextlib.contextmanager
def _disk_errors_name(folder: pathlib.Path) -> Iterator[None]:
    """Turns what orbax raises on a full disk into an `OSError` of a folder.

    TensorStore raises a `ValueError` that names one of its own files, with the code of
    the operating system in the text.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        number = int(code[1]) if code else getattr(error, "errno", None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(folder)) from error


def _remove_older(checkpointer: ocp.training.Checkpointer) -> None:
    """Removes all whole steps but the last; none may be being saved."""

    def remove() -> None:
        checkpointer.reload()
        for step in checkpointer.checkpoints[:-1]:
            folder = pathlib.Path(step.path)
            # Orbax itself would remove file by file, and take what remains after a kill
            # for a whole step.
            shutil.rmtree(folder.rename(folder.with_name(folder.name + _TEMPORARY)))

    processes.broadcast_from_first(remove)
    checkpointer.reload()


@contextlib.contextmanager
def writer(folder: pathlib.Path, seconds_between: int) -> Iterator[Callable[..., None]]:
    """Saves the last steps of a training run in a folder, in the background.

    Removes what a killed writer left unfinished, so a folder has one writer at a time.

    Yields:
      A function that saves a step, from 1, and a tree of arrays, unless a step is being
      saved or the last was too recent; with `final=True` in any case.

    Raises:
      OSError: if the folder cannot be written to, such as on a full disk; also from the
        next call of the function, or at the end.
    """
    policy = ocp.training.save_decision_policies.ContinuousCheckpointingPolicy(
        minimum_interval_secs=seconds_between
    )
    with _disk_errors_name(folder):
        checkpointer = ocp.training.Checkpointer(
            folder.resolve(), save_decision_policy=policy, cleanup_tmp_directories=True
        )

    def save(step: int, tree: Any, *, final: bool = False) -> None:
        with _disk_errors_name(folder):
            # Asking orbax to save while it does would confuse its thread. With several
            # processes it follows the first one's clock.
            if not (final or checkpointer.should_save(step)):
                return
            checkpointer.wait()
            _remove_older(checkpointer)
            latest = processes.broadcast_from_first(
                lambda: max((old.step for old in checkpointer.checkpoints), default=0)
            )
            if latest < step:
                checkpointer.save_async(
                    step, tree, force=True,
                    custom_metadata=_identity(folder, step, devices.to_numpy(tree)),
                )  # fmt: skip

    try:
        yield save
    finally:
        with _disk_errors_name(folder):
            checkpointer.close()


def _identity(folder: pathlib.Path, step: int, tree: Any) -> dict[str, Any]:
    """Identifies a step, as orbax itself notices no changed byte.

    With its number and the sweep's folder, a step that was moved is recognized.
    """
    digest = digests.of_arrays(tree)
    return {"digest": digest, "step": step, "sweep": folder.parent.name}


def saved_steps(folder: pathlib.Path) -> list[int]:
    """Lists the steps in a checkpointer's folder, the last one first.

    Orbax itself lists none if one is damaged.
    """
    names = processes.broadcast_from_first(lambda: [p.name for p in folder.glob("*")])
    return sorted((int(n) for n in names if re.fullmatch("[0-9]+", n)), reverse=True)


def load_step(folder: pathlib.Path, step: int, abstract: Any) -> Any:
    """Loads one step on each process, whichever devices it was saved from."""
    path = folder / str(step)

    def load() -> Any:
        with damage_named(path, AGAIN, passed=(jax.errors.JaxRuntimeError,)):
            metadata = ocp.metadata(path.resolve())
            if metadata.init_timestamp_nsecs is None:
                # It loads all the same, but would prevent writing to the folder.
                raise ValueError("its metadata are not as they were written")
            tree = load_arrays(path, abstract)
            # Steps of earlier versions lack some of it.
            found = _identity(folder, step, tree)
            if not (metadata.custom_metadata or {}).items() <= found.items():
                raise ValueError("its arrays are not those that were saved")
            return tree

    return processes.on_all_processes(load)


def remove_others(folder: pathlib.Path, step: int | None) -> None:
    """Removes all steps except one, or all of them, from a checkpointer's folder.

    Orbax saves no step before the last one, and none beside a damaged one.
    """
    others = set(saved_steps(folder)) - {step}

    def remove() -> None:
        for other in others:
            files.remove(folder / str(other))

    processes.broadcast_from_first(remove)


def save_arrays(path: pathlib.Path, tree: Any) -> None:
    """Writes one tree, whole or not at all."""
    with _disk_errors_name(path):
        ocp.save(path.resolve(), tree, overwrite=True)


def load_arrays(path: pathlib.Path, abstract: Any) -> Any:
    """Loads one tree for each process, wherever it was saved, given its shapes."""
    sharding = devices.replicated_per_process()
    replicated = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
    )
    loaded = ocp.load(path.resolve(), replicated)
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), loaded)
