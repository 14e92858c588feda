"""Prints how training scales: `python -m benchmarks.scaling`."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence

from experiments import xla_flags

xla_flags.turn_off_ynnpack_fusions()

import jax  # noqa: E402
import tyro  # noqa: E402

from absum_jax.markdown import aligned  # noqa: E402
from benchmarks.scaling import exchanges, measured, program, projection  # noqa: E402
from benchmarks.scaling.exchanges import Exchanged, Step  # noqa: E402
from benchmarks.scaling.measured import Machines  # noqa: E402
from benchmarks.scaling.projection import (  # noqa: E402
    RECIPE,
    Assumptions,
    Projected,
)
from experiments.data import pgd_of  # noqa: E402
from experiments.jobs.errors import UsageError  # noqa: E402
from experiments.published import SINGLE_FOURIER_FREQUENCIES  # noqa: E402

_ACCELERATORS = 8, 64, 512
_IMAGES_EACH = 32  # of an accelerator, so that the published batch is that of eight
_CLIP_SECONDS = 0.1, 1.0, 10.0, 30.0


def _print(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("", *aligned(header, rows), sep="\n", flush=True)


def _measured(title: str, work: str, steps: int) -> None:
    """A table of what is timed, each number of devices with the time of one beside."""
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
    _print([*header, ratio], rows)


def _counted(exchanged: Exchanged) -> None:
    """A table of what is exchanged."""
    whole, grouped, single_fourier, pgd = exchanged
    rows = [
        ("a step, statistics of the whole batch: layer by layer", whole.layers),
        ("a step, statistics of the whole batch: at its end", whole.end),
        ("a step, in groups: layer by layer", grouped.layers),
        ("a step, in groups: at its end", grouped.end),
        ("Single Fourier Attack, each frequency", single_fourier),
        ("PGD, all of its steps", pgd),
    ]
    _print(
        ("ResNet-18 on ImageNet, a batch", "exchanges", "bytes of each device"),
        [(name, str(amount.exchanges), f"{amount.bytes:,}") for name, amount in rows],
    )
    print()
    formula = exchanges.formula_bytes(exchanges.PARAMETERS, exchanges.CHANNELS)
    for step, name in ((whole, "whole"), (grouped, "groups")):
        print(f"{name}: {step.bytes:,} bytes, by the formula {formula:,}")


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _hours(steps: Projected, seconds: float) -> str:
    """Of all epochs, by the seconds of a step."""
    return f"{RECIPE.epochs * steps.steps * seconds / 3600:,.2f}"


def _steps(projections: Sequence[Projected], left_out: Sequence[int]) -> None:
    rows = [
        [
            str(p.accelerators), f"{p.batch:,}", _milliseconds(p.compute),
            _milliseconds(p.layers), _milliseconds(p.gradients), _milliseconds(p.step),
            f"{p.efficiency:.2f}", _milliseconds(p.overlapped),
            f"{p.compute / p.overlapped:.2f}",
        ]
        for p in projections
    ]  # fmt: skip
    rows += [[str(n), *["-"] * 8] for n in left_out]
    _print(
        (
            "accelerators", "batch", "compute, ms", "statistics", "gradients", "step",
            "efficiency", "overlapped", "efficiency then",
        ),
        rows,
    )  # fmt: skip


def _feeding(projections: Sequence[Projected], assumed: Assumptions) -> None:
    epochs, rows = f"{RECIPE.epochs} epochs, h", []
    for p in projections:
        each_host = p.batch / p.step / p.hosts
        row = [
            str(p.accelerators), f"{p.batch:,}", f"{p.batch / p.step:,.0f}",
            f"{p.steps * p.step:.1f}", _hours(p, p.step), f"{each_host:,.0f}",
            f"{each_host / assumed.images_per_core:,.0f}", f"{p.batch / p.fed:,.0f}",
            f"{p.steps * p.fed:.1f}", _hours(p, p.fed),
        ]  # fmt: skip
        rows.append(row)
    _print(
        (
            "accelerators", "batch", "images/s", "epoch, s", epochs, "images/s a host",
            "cores a host", f"images/s by {assumed.cores_per_host}", "epoch, s", epochs,
        ),
        rows,
    )  # fmt: skip


def _attacks(assumed: Assumptions) -> None:
    frequencies, steps = SINGLE_FOURIER_FREQUENCIES**2, pgd_of("cifar10").test_steps
    rows = []
    for n in _ACCELERATORS:
        single_fourier = projection.single_fourier_seconds(n, frequencies, assumed)
        pgd = projection.pgd_seconds(n, steps, assumed)
        rows.append([str(n), f"{single_fourier / 60:.2f}", f"{pgd / 60:.2f}"])
    header = f"Single Fourier Attack, {frequencies:,} frequencies, min"
    _print(("accelerators", header, f"PGD, {steps} steps, min"), rows)


def _clipping(projections: Sequence[Projected]) -> None:
    rows = [
        [
            f"{seconds:g}", f"{projection.clips() * seconds / 3600:,.1f}",
            *(f"{projection.clip_share(p, seconds):.2f}" for p in projections),
        ]
        for seconds in _CLIP_SECONDS
    ]  # fmt: skip
    shares = (f"share on {p.accelerators}" for p in projections)
    _print(("a clip, s", f"{projection.clips():,} clips, h", *shares), rows)


def _divided(
    batches: Sequence[int], exchanged: Step, assumed: Assumptions
) -> Iterator[Projected]:
    """The projections of those batches that divide over their accelerators."""
    for n, batch in zip(_ACCELERATORS, batches, strict=True):
        if batch % n == 0:
            yield projection.project(n, batch, exchanged, assumed)


def main(assumed: tyro.conf.OmitArgPrefixes[Assumptions], measure: bool = True) -> None:
    """Prints what is measured, counted and projected.

    Args:
      assumed: of accelerators, for the projection.
      measure: whether to time steps on this machine, which takes minutes.
    """
    print(
        f"{os.cpu_count()} CPU cores, jax {jax.__version__}, "
        f"Python {platform.python_version()}"
    )
    if measure:
        size = f"{program.SIZE} x {program.SIZE}"
        _measured(f"ResNet-18, {size}, batch {program.BATCH}", "resnet", 1)
        title = f"{program.MODELS} small CNNs, batch {program.BATCH}"
        _measured(title, "sweep", program.SWEEP_STEPS)
    exchanged = measured.exchanged()
    _counted(exchanged)
    weak = [_IMAGES_EACH * n for n in _ACCELERATORS]
    strong = [RECIPE.batch_size for _ in _ACCELERATORS]
    whole, grouped = exchanged.step, exchanged.step_in_groups
    fixed = list(_divided(strong, whole, assumed))
    for title, step in (("statistics of the whole batch", whole), ("groups", grouped)):
        growing = list(_divided(weak, step, assumed))
        print(f"\nProjected, {_IMAGES_EACH} images an accelerator, {title}")
        _steps(growing, [])
        _feeding(growing, assumed)
    print(f"\nProjected, {RECIPE.batch_size} images in all")
    _steps(fixed, [n for n in _ACCELERATORS if RECIPE.batch_size % n])
    _feeding(fixed, assumed)
    print("\nProjected, evaluation of 50,000 images")
    _attacks(assumed)
    print(f"\nProjected, SNC at batch {RECIPE.batch_size}")
    _clipping(fixed)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UsageError as error:
        sys.exit(f"error: {error}")
