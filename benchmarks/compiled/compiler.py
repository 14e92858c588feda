"""Compiles programs for accelerators that are not there, one for each line it reads.

A line names a program and a topology in JSON; the answer is a line of JSON as well. The
process must have the variables of `ENVIRONMENT` from its start.
"""

import collections
import json
import sys
import time
from typing import Any

import jax
from jax.experimental import topologies

from benchmarks.compiled import programs
from benchmarks.compiled.exchanges import exchanges_of
from experiments.training import devices

# Without them libtpu looks for a TPU, and for the metadata of its machine.
ENVIRONMENT = {
    # A lock is for those who use a TPU.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}


def devices_of(topology: str) -> list[jax.Device]:
    """Returns the chips of a topology such as "v5e:2x2"; of one chip, on its own host.

    Args:
      topology: the kind of chip and the shape of the slice.
    """
    sizes = topology.partition(":")[2].split("x")
    options: dict[str, Any] = {}
    if all(size == "1" for size in sizes):
        options["chips_per_host_bounds"] = (1, 1, 1)
    found = topologies.get_topology_desc(
        topology_name=topology, platform="tpu", **options
    ).devices
    return list(found)


def measured(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Returns what the compiler says of a program: of one device, in bytes.

    Args:
      compiled: the program.
    """
    memory = compiled.memory_analysis()
    costs = compiled.cost_analysis() or {}
    text = compiled.as_text()
    assert memory is not None
    assert text is not None
    exchanged: dict[str, Any] = collections.defaultdict(collections.Counter)
    for exchange in exchanges_of(text):
        of_kind = exchanged[exchange.kind]
        of_kind["count"] += 1
        for array in exchange.operands:
            of_kind[array.dtype] += array.bytes
    return {
        "arguments": memory.argument_size_in_bytes,
        # Those that overwrite arguments take no memory of their own.
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "flops": costs.get("flops"),
        "estimated_seconds": costs.get("optimal_seconds"),
        "exchanges": exchanged,
    }


def compile_program(program: str, topology: str) -> dict[str, Any]:
    """Compiles a program for a topology, and returns a row of the table.

    Args:
      program: its name in `programs.PROGRAMS`.
      topology: as `devices_of` takes it.
    """
    with devices.using(devices_of(topology)):
        try:
            lowered = programs.PROGRAMS[program]().lower()
            started = time.perf_counter()
            compiled = lowered.compile()
        except Exception as error:  # the reason belongs into the table
            return {"failure": f"{type(error).__name__}: {error}"}
    return measured(compiled) | {"seconds": round(time.perf_counter() - started, 1)}


def main() -> None:
    """Answers line by line."""
    for line in sys.stdin:
        print(json.dumps(compile_program(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
