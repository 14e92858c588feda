"""Checks the arguments of a command before they are parsed, for errors of one line."""

import pathlib
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from experiments import composed
from experiments.jobs import files
from experiments.jobs.errors import UsageError
from experiments.names import Name, suggestion

# What an option must be, and one of several values.
_NOUNS = {int: ("an integer", "integers"), float: ("a number", "numbers")}


def check(options: type, arguments: Sequence[str]) -> None:
    """Refuses unknown options, and values that are not of an option's type.

    Args:
      options: the dataclass of the options, made of parts.
      arguments: what follows the command.

    Raises:
      UsageError: that names the option, its value and what is expected.
    """
    known = dict(composed.flags(options))
    switches = {f"--no-{flag[2:]}" for flag, hint in known.items() if hint is bool}
    for flag, values in _given(arguments):
        if flag in switches:
            _check(flag, bool, values)
        elif flag in known:
            _check(flag, known[flag], values)
        else:
            raise UsageError(f"there is no option {flag}{suggestion(flag, known)}")


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields each option with the values that follow it."""
    given: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            name, has_value, value = argument.partition("=")
            given.append((composed.flag(name[2:]), [value] if has_value else []))
        elif given:
            given[-1][1].append(argument)
        else:
            raise UsageError(f"{argument!r} follows no option; options begin with --.")
    yield from given


def _check(flag: str, hint: Any, values: Sequence[str]) -> None:
    """Refuses values, of the command line, that are not of an option's type."""
    origin, members = get_origin(hint), get_args(hint)
    if hint is bool:
        if values:
            raise UsageError(f"{flag} takes no value, got {' '.join(values)!r}.")
    elif origin in (Union, types.UnionType):
        if list(values) != ["None"]:
            [hint] = (member for member in members if member is not types.NoneType)
            _check(flag, hint, values)
    elif origin is Annotated and not _names(hint):
        _check(flag, members[0], values)
    elif origin is tuple:
        of_each = members[0]
        if get_origin(of_each) is tuple:  # groups of several values
            of_each, *others = get_args(of_each)
            if len(values) % (size := 1 + len(others)):
                _, noun = _NOUNS[of_each]
                raise UsageError(
                    f"{flag} must be {size} {noun} each, got {' '.join(values)!r}."
                )
        for value in values:
            _check_value(flag, of_each, value, is_one=False)
    elif len(values) != 1:
        got = repr(" ".join(values)) if values else "none"
        raise UsageError(f"{flag} takes one value, got {got}.")
    else:
        _check_value(flag, hint, values[0], is_one=True)


def _names(hint: Any) -> Name | None:
    """Returns the names that an option is restricted to."""
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((extra for extra in extras if isinstance(extra, Name)), None)


def _check_value(flag: str, hint: Any, value: str, *, is_one: bool) -> None:
    """Refuses a value, one or one of several, that is not of a type."""
    if hint in _NOUNS:
        try:
            hint(value)
        except ValueError:
            noun = _NOUNS[hint][0 if is_one else 1]
            raise UsageError(f"{flag} must be {noun}, got {value!r}.") from None
    names = _names(hint)
    choices = get_args(hint) if get_origin(hint) is Literal else None
    if names is not None and not names.knows(value):
        choices = names.known
    if choices is not None and value not in choices:
        raise UsageError(
            f"{flag} must be {'one of' if is_one else 'among'} {', '.join(choices)}, "
            f"got {value!r}{suggestion(value, choices)}"
        )
    try:
        if names is not None:
            names.instance_from_str([value])
        elif hint is pathlib.Path:
            files.expanded(value)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from error
