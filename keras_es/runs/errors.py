"""What goes wrong with a run that its user can mend: one line, and an exit code."""

from collections.abc import Mapping
from typing import Any

from keras_es.runs.options import OPTIONS


class RunError(Exception):
    """Something the user has to change; the message is one line."""

    exit_code = 2


class DataError(RunError):
    """The flags are right, but the data set is not to be had."""

    exit_code = 1


def different_flags(config: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return what two runs differ in, as flags of the first; "" if in nothing.

    Args:
        config: What the result of this run follows from.
        other: The same of the other run, as JSON gave it back.

    Example:

    >>> different_flags({"seed": 1, "epochs": 3}, {"seed": 0, "epochs": 3})
    '--seed=1 (it has 0)'
    """
    missing = object()
    return ", ".join(
        f"{_prefix(name)}{name}={_text(value)} "
        f"(it has {_text(other.get(name, 'nothing'))})"
        for name, value in config.items()
        if other.get(name, missing) != value
    )


def _prefix(name):
    if name == "replicas":
        return ""
    return "--options=" if name in OPTIONS else "--"


def _text(value):
    return "" if value is None else str(value)
