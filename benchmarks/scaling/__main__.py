"""Times steps on virtual devices and processes: `python -m benchmarks.scaling`."""

import argparse
import os
import platform

from experiments import xla_flags

xla_flags.turn_off_ynnpack_fusions()

import jax  # noqa: E402

from absum_jax.markdown import aligned  # noqa: E402
from benchmarks.scaling import measured, program  # noqa: E402
from benchmarks.scaling.measured import Machines  # noqa: E402


def _print_measured(title: str, work: str, steps: int) -> None:
    """Prints a table of times, each with its ratio to the time of one device."""
    seconds = measured.seconds_of(work)
    alone = seconds[Machines(1, 1)]

    def cells(machines: Machines) -> list[str]:
        if machines not in seconds:
            return ["", ""]
        value = seconds[machines]
        return [f"{1e3 * value / steps:,.0f}", f"{alone / value:.2f}"]

    rows = [
        [str(devices), *cells(Machines(1, devices)), *cells(Machines(2, devices))]
        for devices in measured.DEVICES
    ]
    ratio = "ratio"
    header = f"{title}: virtual devices", "1 process, ms", ratio, "2 processes, ms"
    print("", *aligned([*header, ratio], rows), sep="\n", flush=True)


def main() -> None:
    """Prints what is measured."""
    argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__
    ).parse_args()
    print(
        f"{os.cpu_count()} CPU cores, jax {jax.__version__}, "
        f"Python {platform.python_version()}"
    )
    size = f"{program.SIZE} x {program.SIZE}"
    _print_measured(f"ResNet-18, {size}, batch {program.BATCH}", "resnet", 1)
    title = f"{program.MODELS} small CNNs, batch {program.BATCH}"
    _print_measured(title, "sweep", program.SWEEP_STEPS)


if __name__ == "__main__":
    main()
