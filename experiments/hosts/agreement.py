"""What processes tell each other, as bytes over the network of their devices."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.errors import UsageError


def are_several() -> bool:
    """Whether this process works together with others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes, as one by itself is."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


@functools.cache
def _mesh() -> Mesh:
    """One device of each process."""
    of_process = {device.process_index: device for device in jax.devices()[::-1]}
    devices = [of_process[i] for i in range(jax.process_count())]
    return Mesh(np.array(devices), ("process",))


@functools.cache
def _replicate() -> Callable[[jax.Array], jax.Array]:
    everywhere = NamedSharding(_mesh(), PartitionSpec())
    return jax.jit(lambda rows: rows, out_shardings=everywhere)


def _rows(row: np.ndarray) -> np.ndarray:
    """The rows of all processes, of the same length."""
    sharding = NamedSharding(_mesh(), PartitionSpec("process"))
    rows = jax.make_array_from_process_local_data(sharding, row[None])
    return np.asarray(_replicate()(rows))


def _told(data: bytes) -> list[bytes]:
    """What each process has to say."""
    lengths = _rows(np.array([len(data)], np.int32))[:, 0]
    # Lengths are rounded up, so that few are compiled for.
    size = 1 << int(lengths.max()).bit_length()
    row = np.zeros(size, np.uint8)
    row[: len(data)] = np.frombuffer(data, np.uint8)
    rows = _rows(row)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


_ERRORS: dict[str, type[Exception]] = {"UsageError": UsageError, "OSError": OSError}


def _outcome(work: Callable[[], Any]) -> tuple[Any, dict[str, str] | None]:
    """The result of some work, and what a user is told of its failure."""
    try:
        return work(), None
    except UsageError as error:
        return None, {"kind": "UsageError", "text": str(error)}
    except OSError as error:
        return None, {"kind": "OSError", "text": str(error)}


def agreed(find: Callable[[], Any]) -> Any:
    """What the first process finds, on all of them.

    All processes have to call it, in the same order. A process by itself calls `find`.

    Args:
      find: returns what JSON holds. The other processes do not call it.

    Raises:
      UsageError: everywhere, if `find` raises it.
      OSError: likewise.
    """
    if not are_several():
        return find()
    data = b""
    if is_first():
        found, failure = _outcome(find)
        data = json.dumps({"found": found, "failure": failure}).encode()
    told = json.loads(_told(data)[0])
    if failure := told["failure"]:
        raise _ERRORS[failure["kind"]](failure["text"])
    return told["found"]


def everywhere(work: Callable[[], Any]) -> Any:
    """Does some work on each process; where it fails on one, it has failed on all.

    Args:
      work: of this process.

    Returns:
      Its result.

    Raises:
      UsageError: if it fails anywhere by one, which it names with the process.
      OSError: likewise.
    """
    if not are_several():
        return work()
    result, failure = _outcome(work)
    failures = map(json.loads, _told(json.dumps(failure).encode()))
    for process, told in enumerate(failures):
        if told is not None:
            raise _ERRORS[told["kind"]](f"process {process}: {told['text']}")
    return result
