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
    gradient,
    inputs,
    loops,
    resnet,
    spectral,
    torch_peer,
    training,
)
from experiments.training import devices  # noqa: E402

BENCHMARKS: dict[str, tuple[Callable[[], list[dict[str, Any]]], ...]] = {
    "training": (training.regularizer_cost, training.models_in_one_program),
    "attack": (attack.grid_speed,),
    "gradient": (
        gradient.pgd_speed,
        gradient.pgd_agreement,
        gradient.adversarial_step_cost,
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
    print(f"{jax.device_count()} x {device}, {os.cpu_count()} CPU cores,", end=" ")
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
        title, ratio_to = rows[0]["benchmark"], rows[0]["ratio_to"]
        unit = next(key for key in rows[0] if key in _UNITS)
        cells = [(r["case"], f"{r[unit]:,.2f}", _ratio(r["ratio"])) for r in rows]
        header = (title, _UNITS[unit], f"ratio to {ratio_to}")
        print("", *aligned(header, cells), sep="\n", flush=True)


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
