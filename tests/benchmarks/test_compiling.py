"""Programs are lowered for accelerators; rows are kept, and failures are reported."""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.compiled import __main__ as command
from benchmarks.compiled import compiler, exchanges, programs
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.training import devices

_VERSIONS = {"jax": "1", "libtpu": "2"}
_MEASURED = {
    "arguments": 2**20, "results": 2**20, "temporary": 2**21, "code": 0,
    "flops": 2e9, "estimated_seconds": 1e-3, "seconds": 12.3,
    "exchanges": {"all-reduce": {"count": 2, "f32": 4_000, "s32": 8}},
}  # fmt: skip


# The others take a minute to trace, or are like these.
_LOWERED = (
    "sweep", "adversarial-epoch-resnet18", "step-imagenet", "single-fourier-sweep",
    "pgd-sweep", "apgd-ce-resnet18", "apgd-t-resnet18", "fab-t-resnet18",
    "square-resnet18", "absum-resnet18", "norms-resnet18",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", _LOWERED)
def test_programs_are_lowered_for_accelerators(shallow, name):
    with devices.using(jax.devices()):
        exported = programs.PROGRAMS[name]().exported(("cuda", "tpu"))
    assert exported.platforms == ("cuda", "tpu")
    assert exported.nr_devices == jax.device_count()


def test_devices_that_are_compiled_for_are_divided():
    chosen = jax.devices()[1:3]
    before = devices.available()
    with devices.using(chosen):
        assert devices.available() == chosen
    assert devices.available() == before


class _Told:
    """Stands for the compiler, and counts what it is asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def compile(self, program, topology):
        self.asked.append((program, topology))
        return self.answer


def _compute(told, path, versions=_VERSIONS):
    names, topologies = ["a", "b"], ["v5e:1x1", "v5e:2x2"]
    return list(command.compute(names, topologies, path, told, versions))


def test_rows_are_computed_once_for_the_same_versions(tmp_path):
    told, path = _Told(_MEASURED), tmp_path / "rows.jsonl"
    rows = _compute(told, path)
    assert [(row["program"], row["topology"]) for row in rows] == told.asked
    assert len(told.asked) == 4
    assert _compute(told, path) == rows == files.read_json_lines(path)
    assert len(told.asked) == 4
    _compute(told, path, _VERSIONS | {"jax": "1.1"})
    assert len(told.asked) == 8


def test_a_row_is_formatted():
    row = _MEASURED | {"program": "a", "topology": "v5e:2x2"}
    assert command.columns(row) == {
        "memory": "4 MiB", "of the chip's": "0.0 %", "temporary": "2 MiB",
        "GFLOP": "2.0", "estimate, ms": "1.00", "exchanges": "2 all-reduce, 4,008 B",
        "compiled in, s": "12",
    }  # fmt: skip


# A v5e computes 197 operations in a picosecond at most.
@pytest.mark.parametrize("seconds", [-1.0, 0.0, None, 1e-5])
def test_implausible_estimates_are_left_out(seconds):
    row = _MEASURED | {"topology": "v5e:2x2", "estimated_seconds": seconds}
    assert command.columns(row)["estimate, ms"] == ""


def test_unknown_operations_are_left_out():
    row = _MEASURED | {"topology": "v5e:2x2", "flops": None}
    assert command.columns(row)["GFLOP"] == ""


def test_the_reason_of_a_failure_is_below_the_table():
    failing = {"program": "a", "topology": "v5e:2x2", "failure": "17 GB:\n 1 | 2"}
    text = command.page([failing, _MEASURED | failing | {"program": "b"}], _VERSIONS)
    *_, above, line, other = text.splitlines()
    assert (above, line, other) == ("", "- a: 17 GB: 1 / 2", "- b: 17 GB: 1 / 2")
    assert "| a       |  fails |" in text


def test_the_page_has_a_table_for_each_topology():
    rows = [
        _MEASURED | {"program": name, "topology": topology}
        for name in "ab"
        for topology in ("v5e:1x1", "v5e:2x4")
    ]
    text = command.page(rows, _VERSIONS)
    assert "jax 1, libtpu 2" in text
    one, host = text.split("## ")[1:]
    assert one.startswith("v5e:1x1, 1 chip\n")
    assert host.startswith("v5e:2x4, 8 chips\n")
    for table in (one, host):
        header, _, *lines = (line for line in table.splitlines() if "|" in line)
        assert header.split()[1] == "program"
        assert [line.split()[1] for line in lines] == ["a", "b"]


def _summed():
    everywhere = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((4, 3), jnp.float32, sharding=everywhere)
    return programs.Program(jax.jit(lambda x: x.sum(axis=0)), (x,))


def _wrong():
    return programs.Program(jax.jit(jnp.linalg.eigh), (jnp.ones((2, 3)),))


def test_a_program_is_measured_or_its_failure_told(monkeypatch):
    monkeypatch.setattr(compiler, "devices_of", lambda _: jax.devices()[:2])
    monkeypatch.setattr(programs, "PROGRAMS", {"sum": _summed, "wrong": _wrong})
    row = compiler.compile_program("sum", "v5e:1x2")
    assert row["exchanges"] == {"all-reduce": {"count": 1, "f32": 12}}
    assert row["arguments"] == 2 * 3 * 4
    failure = compiler.compile_program("wrong", "v5e:1x2")["failure"]
    assert failure.startswith("TypeError: ")


def _rows():
    rows = files.read_json_lines(command.ROWS)
    return {(row["program"], row["topology"]): row for row in rows}


def test_all_programs_compile_for_all_topologies():
    rows = _rows()
    # As docs/scaling.md explains: the compiler itself crashes, and 128 images cannot be
    # divided among 256 chips.
    failing = {key for key, row in rows.items() if "failure" in row}
    epochs = {(name, on) for name, on in rows if "epoch-" in name and "16x16" in on}
    assert failing == epochs | {("step-imagenet-32-per-chip", "v6e:16x16")}
    known = [name for name, _ in rows]
    complete = [
        n for n in programs.PROGRAMS if known.count(n) == len(command.TOPOLOGIES)
    ]
    assert len(complete) >= 12
    assert "step-imagenet" in complete


@pytest.mark.parametrize("topology", ["v5e:2x4", "v5e:16x16", "v6e:16x16"])
def test_the_step_on_imagenet_exchanges_what_the_formula_says(topology):
    exchanged = _rows()["step-imagenet", topology]["exchanges"]
    assert exchanged.keys() == {"all-reduce"}
    sizes = exchanged["all-reduce"]
    assert sizes["bf16"] == 2 * exchanges.KERNELS
    formula = exchanges.formula_bytes(
        exchanges.PARAMETERS, exchanges.CHANNELS, exchanges.KERNELS
    )
    assert sizes["bf16"] + sizes["f32"] == pytest.approx(formula, rel=0.01)


def test_the_page_shows_the_rows():
    rows = files.read_json_lines(command.ROWS)
    text = command.ROWS.with_suffix(".md").read_text()
    for row in rows:
        section = text.split(f"## {row['topology']},")[1].split("\n## ")[0]
        [line] = [
            x for x in section.splitlines() if x.startswith(f"| {row['program']} ")
        ]
        cells = [cell.strip() for cell in line.strip("|").split("|")[1:]]
        assert cells == list(command.columns(row).values())
        if "failure" in row:
            assert command.failure(row) in section.splitlines()


_FAKE = """
import json, sys, time
print("what libtpu says")
for line in sys.stdin:
    asked = json.loads(line)
    if asked["program"] == "hangs":
        time.sleep(1000)
    if asked["program"] == "ends":
        sys.exit(3)
    print(json.dumps(asked), flush=True)
"""


@pytest.fixture
def fake_compiler(tmp_path, monkeypatch):
    (tmp_path / "fake_compiler.py").write_text(_FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(compiler, "__name__", "fake_compiler")


@pytest.mark.slow
def test_a_compiler_that_ends_is_started_anew(fake_compiler):
    with contextlib.closing(command.Compiler(timeout=1000)) as compiling:
        for _ in range(2):
            assert compiling.compile("a", "t") == {"program": "a", "topology": "t"}
        failure = {"failure": "the compiler ended with exit code 3"}
        assert compiling.compile("ends", "t") == failure
        assert compiling.compile("a", "t")["program"] == "a"


@pytest.mark.slow
def test_a_compiler_that_takes_too_long_is_ended(fake_compiler):
    with contextlib.closing(command.Compiler(timeout=0.1)) as compiling:
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"not compiled after 0\.1 s"):
                compiling.compile("hangs", "t")


@pytest.mark.slow
def test_a_compiler_that_ended_between_programs_is_started_anew(fake_compiler):
    with contextlib.closing(command.Compiler(timeout=1000)) as compiling:
        assert compiling.compile("a", "t")["program"] == "a"
        compiling._process.kill()
        compiling._process.wait()
        assert compiling.compile("b", "t")["program"] == "b"


def test_what_takes_too_long_is_tried_again(tmp_path):
    class Slow:
        def compile(self, program, topology):
            raise TimeoutError("not compiled after 1 s")

    path = tmp_path / "rows.jsonl"
    assert {row["failure"] for row in _compute(Slow(), path)} == {
        "not compiled after 1 s"
    }
    assert [row["seconds"] for row in _compute(_Told(_MEASURED), path)] == [12.3] * 4


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("programs", "unknown", "--programs must be among .*; got unknown"),
        ("topology", "v9:2x2", "--topology must be .*; got v9:2x2"),
        ("topology", "v5e", "--topology must be .*; got v5e"),
    ],
)
def test_unknown_names_are_refused(option, value, message):
    with pytest.raises(UsageError, match=message):
        command.Options(**{option: (value,)})
