"""What each of two processes does in `test_hosts.py`: see there."""

import json
import pathlib

import jax
import tyro
from hosts_work import (
    ATTACKED,
    CONFIGS,
    evaluations,
    evaluations_on_pictures,
    stopped_among_pictures,
    stopped_in_the_last_model,
    train,
    train_on_pictures,
)

from experiments.jobs import files, processes
from experiments.jobs.errors import UsageError
from experiments.jobs.joining import HostOptions


def _error(work) -> str:
    try:
        work()
    except (UsageError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def _fail(kind, text):
    raise kind(text)


def _agreement(folder: pathlib.Path) -> dict:
    """What the processes tell each other, and what is written."""
    own = jax.process_index()

    def only_second(kind):
        if own == 1:
            raise kind("out of luck")

    files.write_text(folder / "written", str(own))
    return {
        "broadcast": processes.broadcast_from_first(
            lambda: {"from": own, "text": "ü" * own or "-" * 3000}
        ),
        "broadcast_error": _error(
            lambda: processes.broadcast_from_first(lambda: _fail(UsageError, "no"))
        ),
        "on_all": processes.on_all_processes(lambda: own),
        "on_all_error": _error(
            lambda: processes.on_all_processes(lambda: only_second(UsageError))
        ),
        "system_error": _error(
            lambda: processes.on_all_processes(lambda: only_second(OSError))
        ),
        "alike": _error(lambda: processes.check_equal({"epochs": 4, "seeds": (0, 1)})),
        "unlike": _error(lambda: processes.check_equal({"epochs": 4 + own})),
        "read": files.read_json(folder / "written"),
    }


_Options = tyro.conf.OmitArgPrefixes[HostOptions]


def main(
    folder: pathlib.Path,
    prepared: pathlib.Path,
    options: tyro.conf.OmitArgPrefixes[HostOptions],
) -> None:
    """Joins, and does everything."""
    options.join()
    told = _agreement(folder)
    # Goes on from a checkpoint of one process.
    runs = train(CONFIGS, folder / "one-then-two")
    told["evaluations"] = evaluations(runs)
    train(ATTACKED, folder / "attacked")
    with stopped_in_the_last_model():
        train(CONFIGS, folder / "two-then-one")
    runs = train_on_pictures(prepared, folder / "one-then-two")
    told["evaluations_on_pictures"] = evaluations_on_pictures(prepared, runs)
    with stopped_among_pictures():
        train_on_pictures(prepared, folder / "two-then-one")
    told["devices"] = jax.device_count()
    own = folder / f"told-{jax.process_index()}.json"
    own.write_text(json.dumps(told))


if __name__ == "__main__":
    tyro.cli(main)
