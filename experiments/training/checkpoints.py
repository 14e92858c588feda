"""Trees of arrays on disk, through orbax."""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp


def writer(folder: pathlib.Path, seconds_between: int) -> ocp.training.Checkpointer:
    """A checkpointer that keeps the last two steps of a training run in a folder.

    Of what it is given it saves what comes when no other save is under way, and not
    too soon after the last. It removes what a killed writer left half done, so a folder
    has one at a time.

    Args:
      folder: of the checkpoints.
      seconds_between: the least time between two.
    """
    policy = ocp.training.save_decision_policies.ContinuousCheckpointingPolicy(
        minimum_interval_secs=seconds_between
    )
    return ocp.training.Checkpointer(
        folder.resolve(),
        save_decision_policy=policy,
        preservation_policy=ocp.training.preservation_policies.LatestN(2),
        cleanup_tmp_directories=True,
    )


def _reader(folder: pathlib.Path) -> ocp.training.Checkpointer:
    return ocp.training.Checkpointer(folder.resolve())


def latest_step(folder: pathlib.Path) -> int | None:
    """The last whole step in a checkpointer's folder."""
    if not folder.is_dir():
        return None
    with _reader(folder) as opened:
        return None if opened.latest is None else opened.latest.step


def load_step(folder: pathlib.Path, step: int, abstract: Any) -> Any:
    """Loads one step onto the default device, from whatever devices it was saved.

    Args:
      folder: a checkpointer's folder.
      step: which step.
      abstract: a tree of arrays or `jax.ShapeDtypeStruct` of their shapes.
    """
    with _reader(folder) as opened:
        return opened.load(step, _on_default_device(abstract))


def save_arrays(path: pathlib.Path, tree: Any) -> None:
    """Writes one tree, whole or not at all."""
    ocp.save(path.resolve(), tree, overwrite=True)


def load_arrays(path: pathlib.Path, abstract: Any) -> Any:
    """Loads one tree onto the default device, wherever it was saved.

    Args:
      path: where it was saved.
      abstract: a tree of arrays or `jax.ShapeDtypeStruct` of their shapes.
    """
    return ocp.load(path.resolve(), _on_default_device(abstract))


def _on_default_device(abstract: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
    )
