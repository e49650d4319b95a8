"""What --options says: values that one kind of data, or of model, takes.

Flags are for all runs. What only images or only speech have a use for is an option,
`--options=units=224,frames=10`; a `Task` names those that it takes.
"""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

from keras_es.datasets import audio


@dataclasses.dataclass(frozen=True)
class Option:
    """How an option is read.

    Args:
        read: Function of the text to its value; ValueError or KeyError if it is none.
        fits: Function of the value.
        expected: What is expected, for the message.
        note: A line of --help.
    """

    read: Callable[[str], Any]
    fits: Callable[[Any], bool]
    expected: str
    note: str


def _switch(text):
    return {"true": True, "false": False}[text.lower()]


OPTIONS = {
    "augment": Option(
        _switch, lambda v: True, "true or false",
        "images: whether they are shifted and flipped; default for CIFAR only",
    ),
    "sample_rate": Option(
        int, lambda v: 1000 <= v < 2**20, "at least 1000, samples in a second",
        "speech: of recordings; default that of the first",
    ),
    "hold_out": Option(
        str, audio.HOLD_OUT.__contains__, " or ".join(audio.HOLD_OUT),
        f"speech: for test, {' or '.join(audio.HOLD_OUT)}; default {audio.HOLD_OUT[0]}",
    ),
    "units": Option(
        int, lambda v: 2 <= v < 2**16 and v % 2 == 0, "an even number, for halves",
        "speech: width; default 896 for sparse_wavernn and 128 for text_to_mel",
    ),
    "frames": Option(
        int, lambda v: 1 <= v < 2**16, "at least 1",
        "sparse_wavernn: of the pieces it learns from, 12.5 ms each; default 10",
    ),
}  # fmt: skip
"""All options by name."""


def parse(text: str, taken: Sequence[str]) -> dict[str, Any]:
    """Return what --options says, a dict from names to values.

    Args:
        text: NAME=VALUE, several with commas between; "" for none.
        taken: Names of the options that this run takes.

    Raises:
        ValueError: If a name is unknown, of no use here or there twice, or a value is
            not what it should be.

    Example:

    >>> from keras_es.runs import options
    >>> options.parse("units=224,hold_out=speaker", ["units", "hold_out"])
    {'units': 224, 'hold_out': 'speaker'}
    """
    found: dict[str, Any] = {}
    for part in text.split(",") if text else []:
        name, equals, value = (word.strip() for word in part.partition("="))
        if not name or not equals or not value:
            raise ValueError(f"expected NAME=VALUE,NAME=VALUE, not {part!r}")
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=3) or [*OPTIONS]
            raise ValueError(f"unknown option {name!r}; did you mean {_list(near)}?")
        if name not in taken:
            raise ValueError(
                f"this data set and model have no option {name!r}, but {_list(taken)}"
            )
        if name in found:
            raise ValueError(f"the option {name!r} is there twice")
        found[name] = _value(name, value)
    return found


def _value(name, text):
    option = OPTIONS[name]
    try:
        value = option.read(text)
    except (ValueError, KeyError):
        value = None
    if value is None or not option.fits(value):
        raise ValueError(f"expected {option.expected}, not {name}={text}")
    return value


def _list(names):
    return " or ".join(names) or "none"
