"""What processes agree on."""

import json
from collections.abc import Callable
from typing import Any

from experiments.jobs.errors import UsageError


def are_several() -> bool:
    """Whether this process works together with others."""
    # Late, here and below, as a command line that asks for help needs no jax.
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes, as one by itself is."""
    import jax

    return not jax.distributed.is_initialized() or jax.process_index() == 0


_ERRORS: dict[str, type[Exception]] = {"UsageError": UsageError, "OSError": OSError}


def _outcome(work: Callable[[], Any]) -> tuple[Any, dict[str, str] | None]:
    """The result of some work, and what a user is told of its failure."""
    try:
        return work(), None
    except UsageError as error:
        return None, {"kind": "UsageError", "text": str(error)}
    except OSError as error:
        return None, {"kind": "OSError", "text": str(error)}


def broadcast_from_first(find: Callable[[], Any]) -> Any:
    """What the first process finds, on all of them.

    All processes have to call it, in the same order. A process by itself calls `find`.

    Args:
      find: returns what JSON holds. The other processes do not call it.

    Raises:
      UsageError: on all processes, if `find` raises it.
      OSError: likewise.
    """
    if not are_several():
        return find()
    from experiments.jobs.gathering import gather_from_all

    data = b""
    if is_first():
        found, failure = _outcome(find)
        data = json.dumps({"found": found, "failure": failure}).encode()
    told = json.loads(gather_from_all(data)[0])
    if failure := told["failure"]:
        raise _ERRORS[failure["kind"]](failure["text"])
    return told["found"]


def on_all_processes(work: Callable[[], Any]) -> Any:
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
    from experiments.jobs.gathering import gather_from_all

    result, failure = _outcome(work)
    failures = map(json.loads, gather_from_all(json.dumps(failure).encode()))
    for process, told in enumerate(failures):
        if told is not None:
            raise _ERRORS[told["kind"]](f"process {process}: {told['text']}")
    return result


def check_alike(own: dict[str, Any]) -> None:
    """Refuses values that are not those of the first process, without which all wait.

    Args:
      own: of this process, which JSON holds.

    Raises:
      UsageError: on all processes, if they differ anywhere.
    """
    own = json.loads(json.dumps(own))
    of_first = broadcast_from_first(lambda: own)

    def check() -> None:
        for name in own | of_first:
            ours, theirs = own.get(name), of_first.get(name)
            if ours != theirs:
                raise UsageError(f"its {name} is {ours}, that of process 0 {theirs}.")

    on_all_processes(check)
