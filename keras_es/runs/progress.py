"""How far a run has come, as the note of a checkpoint says it."""

import dataclasses
import numbers
from typing import Any


@dataclasses.dataclass
class Progress:
    """How far a run has come, apart from the state of the model.

    Args:
        epoch: Number of finished epochs, as `fit` counts them from `initial_epoch` on.
        step: Number of steps taken. Where the length of an epoch is not known, the last
            of `steps_per_execution` > 1 counts as a whole.
        seconds: Time spent in training, over all sessions.
        timed_steps: Steps of which the time is known; the first of each session,
            which compiles, is not among them.
        timed_seconds: Time of those steps.
        history: The logs of each finished epoch.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def check(self) -> None:
        """Raise TypeError if JSON has given back what is no progress."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "history":
                fits = isinstance(value, list) and all(map(_are_numbers, value))
            else:
                kind = int if field.type is int else numbers.Real
                fits = _is_number(value, kind) and value >= 0
            if not fits:
                raise TypeError(f"{field.name} is {value!r}")


def _are_numbers(row):
    return isinstance(row, dict) and all(map(_holds_numbers, row.values()))


def _holds_numbers(value):
    return _is_number(value) or (
        isinstance(value, list) and all(map(_holds_numbers, value))
    )


def _is_number(value, kind=numbers.Real):
    return isinstance(value, kind) and not isinstance(value, bool)
