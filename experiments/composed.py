"""Options of commands, which are composed of parts that several commands share."""

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any, get_args, get_type_hints

# Where files are, and which of several processes this one is.
OF_A_PROCESS = ("runs_dir", "results_dir", "data", "hosts")


def flag(name: str) -> str:
    """Returns the option on the command line that a field is."""
    return "--" + name.replace("_", "-")


def parts(options: Any) -> Iterator[Any]:
    """Yields options and all parts of them."""
    yield options
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(part := getattr(options, field.name)):
            yield from parts(part)


def flags(options: Any) -> Iterator[tuple[str, Any]]:
    """Yields the options of a class, those of parts included, with their types."""
    types = get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        hint = types[field.name]
        if dataclasses.is_dataclass(hint):
            yield from flags(hint)
            continue
        # `tyro.conf.arg(name=...)` has another name than the field.
        named = (getattr(extra, "name", None) for extra in get_args(hint)[1:])
        yield flag(next(filter(None, named), field.name)), hint


def flat(options: Any, without: Collection[str] = ()) -> dict[str, Any]:
    """Returns options by name, those of parts included, without the named ones."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in without:
            continue
        is_part = dataclasses.is_dataclass(value)
        found |= flat(value, without) if is_part else {field.name: value}
    return found


def result_options(options: Any) -> dict[str, Any]:
    """Returns the options that determine results, not where and how they are made."""
    return flat(options, (*OF_A_PROCESS, "compute", "division"))
