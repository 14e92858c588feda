"""Caches compiled programs between commands."""

import contextlib
import importlib.util
import os
import pathlib
import sys
import warnings
import zlib
from typing import Any

import jax

from experiments.data.cache import default_cache_dir
from experiments.jobs.errors import UsageError

_LARGEST_TOTAL = 256 * 2**20  # bytes


def keep_compiled() -> None:
    """Turns on jax's compilation cache, below the user's cache folder.

    Does nothing if the user has configured that cache, if the folder cannot be made or
    others can write to it, or in a multi-process run, in which only process 0 would use
    the cache. Only for programs, as it changes jax's configuration and the filters of
    warnings. Call it before anything is compiled.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None or jax.process_count() > 1:
        return
    if not (settings.jax_enable_compilation_cache and _detects_damage()):
        return
    try:
        folder = default_cache_dir() / "compiled"
        # Whoever can write to it can run any code as this user.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_private(folder):
            return
        _tidy(folder)
    except (OSError, UsageError):  # UsageError: there is no home folder
        return
    # jax recompiles what it cannot read; the next command removes it.
    warnings.filterwarnings(
        "ignore", "Error (reading|writing) persistent compilation cache entry"
    )
    # XLA's caches, on GPUs, have no checksum, and their path is part of each key.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "")
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _is_private(folder: pathlib.Path) -> bool:
    """Checks whether nobody else can write to a folder, as far as is known."""
    if os.name != "posix":
        return True
    status = folder.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _detects_damage() -> bool:
    """Checks whether jax compresses with zlib, whose checksum it verifies.

    It prefers Zstandard, without a checksum: a damaged program may crash, or compute
    wrong numbers.
    """
    return sys.version_info < (3, 14) and importlib.util.find_spec("zstandard") is None


def _tidy(folder: pathlib.Path) -> None:
    """Removes damaged programs, which jax never replaces, and the oldest of too many.

    Programs that another process is still writing may be removed too, and are then
    recompiled.
    """
    total = 0
    for path in sorted(folder.glob("*-cache"), key=_time, reverse=True):
        # Another process may have removed it, or it belongs to another user.
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            total += len(data)
            if total > _LARGEST_TOTAL or not _is_whole(data):
                path.unlink()


def _time(path: pathlib.Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _is_whole(data: bytes) -> bool:
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True
