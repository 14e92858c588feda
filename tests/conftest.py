"""Configuration of all tests."""

import functools
import gc
import importlib.metadata
import os
import pathlib
from unittest import mock

from experiments import xla_flags

# XLA compiles slowly on CPU: keep what it compiled, for the next run and for the other
# worker. An entry that the other is still writing is compiled anew, with a warning that
# the settings of pytest ignore.
ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
# Decoded images too.
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".cache")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Four virtual devices, for the tests of sharded arrays; and the quickest compiler, as
# arrays are small: no optimization by LLVM, one module for it to compile, and up to
# jaxlib 0.10 the older way to emit fusions, which takes half as long in all.
_XLA_FLAGS = [
    "--xla_force_host_platform_device_count=4",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
_JAXLIB = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
if _JAXLIB <= (0, 10):
    _XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("XLA_FLAGS", " ".join(_XLA_FLAGS))
xla_flags.turn_off_ynnpack_fusions()

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

# Tracing makes many objects that stay: a collection after each 700 of them, as is
# Python's default, takes up to a tenth of the time.
gc.set_threshold(100_000, 50, 100)

hypothesis.settings.register_profile(
    "absum_jax", max_examples=50, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("absum_jax")


def pytest_collection_modifyitems(items):
    """Starts with files that have slow tests, so that the workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def _one_ir_context():
    """Shares one MLIR context between a module's programs.

    jax makes one for each: half of the time that it takes to lower a small program.
    """
    if not hasattr(mlir, "make_ir_context"):  # in another version of jax
        yield
        return
    shared = functools.cache(mlir.make_ir_context)
    with mock.patch.object(mlir, "make_ir_context", shared):
        yield


@pytest.fixture(autouse=True, scope="module")
def _nothing_compiled_is_kept():
    """Lets go of a module's programs, gigabytes by the end of a run."""
    yield
    jax.clear_caches()


SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def prepared_tfds() -> pathlib.Path:
    """A TFDS data_dir with real MNIST, where one lies beside the project."""
    path = SHARED / "tfds"
    if not (path / "mnist").is_dir():
        pytest.skip(f"no prepared TFDS data sets at {path}")
    return path


@pytest.fixture(scope="session")
def cifar10_sheets() -> pathlib.Path:
    """Real CIFAR-10 as lossless sheets, where they lie beside the project."""
    path = SHARED / "cifar10"
    if not (path / "labels.npz").is_file():
        pytest.skip(f"no CIFAR-10 at {path}")
    return path
