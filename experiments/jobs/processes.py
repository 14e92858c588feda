"""Broadcasts and compares values in a multi-process run; no-ops in one process."""

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.jobs.errors import UsageError

if TYPE_CHECKING:
    import jax

_ERRORS = {"UsageError": UsageError, "OSError": OSError}
_Failure = tuple[str, str]  # one of `_ERRORS`, and its message


def are_several() -> bool:
    """Returns whether this process is one of several that work together."""
    # Imported here and below, as `--help` works without jax.
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Returns whether this process writes files: process 0, or the only one."""
    import jax

    return not jax.distributed.is_initialized() or jax.process_index() == 0


def broadcast_from_first(find: Callable[[], Any]) -> Any:
    """Calls a function on process 0 and returns its result, as JSON, on all processes.

    All processes must call this in the same order. If `find` raises a `UsageError` or
    an `OSError`, all of them do.
    """
    if not are_several():
        return find()
    result, failure = _gather(_outcome(find) if is_first() else None)[0]
    if failure is not None:
        kind, text = failure
        raise _ERRORS[kind](text)
    return result


def on_all_processes(work: Callable[[], Any]) -> Any:
    """Calls a function on each process, and returns the local result.

    If it raises a `UsageError` or an `OSError` on one process, all of them do, with the
    number of that process.
    """
    if not are_several():
        return work()
    result, failure = _outcome(work)
    for process, failure_there in enumerate(_gather(failure)):
        if failure_there is not None:
            kind, text = failure_there
            raise _ERRORS[kind](f"process {process}: {text}")
    return result


def check_equal(values: dict[str, Any]) -> None:
    """Refuses values, as JSON, that differ between processes: they would deadlock."""
    values = json.loads(json.dumps(values))
    first = broadcast_from_first(lambda: values)

    def check() -> None:
        for name in values | first:
            local, of_first = values.get(name), first.get(name)
            if local != of_first:
                raise UsageError(f"{name} is {local}, but {of_first} in process 0.")

    on_all_processes(check)


def _outcome(work: Callable[[], Any]) -> tuple[Any, _Failure | None]:
    try:
        return work(), None
    except tuple(_ERRORS.values()) as error:
        kind = "UsageError" if isinstance(error, UsageError) else "OSError"
        return None, (kind, str(error))


def _gather(value: Any) -> list[Any]:
    """Returns the values of all processes, as JSON, in the order of the processes."""
    data = json.dumps(value).encode()
    lengths = _gather_rows(np.array([len(data)], np.int32))[:, 0]
    # Rounded up, so that few sizes are compiled.
    row = np.zeros(1 << int(lengths.max()).bit_length(), np.uint8)
    row[: len(data)] = np.frombuffer(data, np.uint8)
    rows = zip(_gather_rows(row), lengths, strict=True)
    return [json.loads(row[:length].tobytes()) for row, length in rows]


def _gather_rows(row: np.ndarray) -> np.ndarray:
    """Stacks the rows of all processes, which have the same length."""
    import jax

    sharding, replicate = _exchange()
    rows = jax.make_array_from_process_local_data(sharding, row[None])
    return np.asarray(replicate(rows))


@functools.cache
def _exchange() -> tuple["jax.sharding.Sharding", Callable[["jax.Array"], "jax.Array"]]:
    """Returns the sharding of one row per process, and a function that replicates it.

    Uses one device of each process.
    """
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    of_process = {device.process_index: device for device in jax.devices()[::-1]}
    devices = [of_process[i] for i in range(jax.process_count())]
    mesh = Mesh(np.array(devices), ("process",))
    replicated = NamedSharding(mesh, PartitionSpec())
    replicate = jax.jit(lambda rows: rows, out_shardings=replicated)
    return NamedSharding(mesh, PartitionSpec("process")), replicate
