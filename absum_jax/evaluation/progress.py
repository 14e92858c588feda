"""Evaluations of several steps, which a progress bar may follow."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import jax

# From a sequence to an iterable of its items, such as `tqdm.tqdm`.
Progress = Callable[[Sequence[Any]], Iterable[Any]]


def evaluated(
    steps: Sequence[Hashable],
    evaluate: Callable[[Any], Any],
    progress: Progress | None = None,
) -> list[Any]:
    """Evaluates steps one after the other.

    Args:
      steps: what distinguishes the steps.
      evaluate: from one of them to arrays, which are awaited.
      progress: is called with the steps, and yields each when it is to be evaluated;
        None shows nothing.

    Returns:
      What `evaluate` returned for each step, in the order of `steps`.

    Raises:
      ValueError: if `progress` does not yield each step once.

    Example:
      >>> from absum_jax.evaluation import progress
      >>> def shown(steps):
      ...     for step in steps:
      ...         print(f"step {step}")
      ...         yield step
      >>> progress.evaluated(range(2), lambda step: 10 * step, shown)
      step 0
      step 1
      [0, 10]
    """
    check_progress(progress)
    wrapped = steps if progress is None else progress(steps)
    if not isinstance(wrapped, Iterable):
        raise ValueError(
            "`progress` must return an iterable of the steps that it is called with, "
            f"as `tqdm.tqdm` does, got {wrapped!r}."
        )
    done: dict[Any, Any] = {}
    for step in wrapped:
        if step in done or step not in steps:
            raise ValueError(f"`progress` must yield each step once, got {step!r}.")
        done[step] = jax.block_until_ready(evaluate(step))
    if len(done) < len(steps):
        raise ValueError(
            f"`progress` must yield all {len(steps)} steps, got {len(done)} of them."
        )
    return [done[step] for step in steps]


def check_progress(progress: Any) -> None:
    """Refuses what cannot be called."""
    if progress is not None and not callable(progress):
        raise ValueError(
            "`progress` must be a function such as `tqdm.tqdm`, or None, got "
            f"{progress!r}."
        )
