"""Runs benchmarks and prints a table of each: `python -m benchmarks [MODULE ...]`."""

import argparse
import itertools
import os
import platform
from collections.abc import Callable
from typing import Any

from experiments import xla_flags

xla_flags.turn_off_ynnpack_fusions()

import jax  # noqa: E402

from absum_jax.markdown import aligned  # noqa: E402
from benchmarks import (  # noqa: E402
    attack,
    auto_attack,
    gradient,
    inputs,
    loops,
    resnet,
    spectral,
    torch_peer,
    training,
)
from experiments.jobs.machine import cpu_model  # noqa: E402
from experiments.training import devices  # noqa: E402

BENCHMARKS: dict[str, tuple[Callable[[], list[dict[str, Any]]], ...]] = {
    "training": (training.regularizer_cost, training.models_in_one_program),
    "attack": (attack.grid_speed,),
    "gradient": (
        gradient.pgd_speed,
        gradient.pgd_agreement,
        gradient.adversarial_step_cost,
    ),
    "auto_attack": (
        auto_attack.agreement,
        auto_attack.linear_model,
        auto_attack.speed,
        auto_attack.resnet_speed,
    ),
    "loops": loops.BENCHMARKS,
    "spectral": (spectral.clip_speed, spectral.norm_speed),
    "resnet": (resnet.passes_speed, resnet.training_speed, resnet.attack_speed),
    "inputs": (inputs.decoding_speed,),
}


def main() -> None:
    """Prints device, versions and flags, and each benchmark's table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", default=list(BENCHMARKS),
        help=f"{', '.join(BENCHMARKS)}; all by default",
    )  # fmt: skip
    modules = parser.parse_args().modules
    if unknown := sorted(set(modules) - set(BENCHMARKS)):
        parser.error(f"no benchmarks are called {', '.join(unknown)}")
    # As in the commands that train small networks.
    devices.one_for_each_core()
    device = jax.devices()[0].device_kind
    print(f"{jax.device_count()} x {device}, {os.cpu_count()} CPU cores", end=" ")
    print(f"({cpu_model()}),", end=" ")
    print(f"jax {jax.__version__},", end=" ")
    print(f"Python {platform.python_version()}", end="")
    if torch_peer.is_installed():
        import torch

        print(f", PyTorch {torch.__version__}")
    else:
        print("; PyTorch is not installed, its rows are left out")
    print(f"XLA_FLAGS={os.environ.get('XLA_FLAGS', '')}")
    for benchmark in itertools.chain(*(BENCHMARKS[name] for name in modules)):
        rows = benchmark()
        columns = [row.get("columns") or _measured(row) for row in rows]
        header = rows[0]["benchmark"], *columns[0]
        cells = [
            (row["case"], *each.values())
            for row, each in zip(rows, columns, strict=True)
        ]
        print("", *aligned(header, cells), sep="\n", flush=True)


def _measured(row: dict[str, Any]) -> dict[str, str]:
    """Formats the measured value of a row, and its ratio to another row's."""
    unit = next(key for key in row if key in _UNITS)
    return {
        _UNITS[unit]: f"{row[unit]:,.2f}",
        f"ratio to {row['ratio_to']}": _ratio(row["ratio"]),
    }


def _ratio(value: float) -> str:
    """Two decimals, and two digits of what they would show as 0.00."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


_UNITS = {
    "ms": "ms",
    "model_steps_per_s": "model steps/s",
    "images_per_s": "images/s",
    "percent": "%",
}

if __name__ == "__main__":
    main()
