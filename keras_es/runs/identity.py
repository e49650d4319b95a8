"""What tells data sets from others: few numbers and digests, compared by name."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Identity = dict[str, int | float | str]
"""What `Task.identity` returns: names, as messages say them, to values for JSON."""

NEARLY = 1e-4
"""Floats are sums over much that another processor may round otherwise."""

MOST_EXAMPLES = 4096
"""Of so many examples, evenly spaced, there is a digest."""


def digest(value: Any) -> str:
    """Return a short digest of what JSON can hold, or of an array.

    Args:
        value: For an array, the rows looked at are evenly spaced.
    """
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(evenly_spaced(value)).tobytes()
    else:
        content = json.dumps(value).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def evenly_spaced(examples: Any) -> Any:
    """Return at most `MOST_EXAMPLES` of an array's rows, evenly spaced."""
    return examples[:: -(-len(examples) // MOST_EXAMPLES)]


def exact(identity: Identity) -> Identity:
    """Return what has to be the same on all machines."""
    return {k: v for k, v in identity.items() if not isinstance(v, float)}


def different(before: Mapping[str, Any], now: Identity) -> str:
    """Return what two identities differ in, for a message; "" if in nothing.

    Args:
        before: What was noted, by this version or another, as JSON gave it back. What
            only one of the two knows is not compared.
        now: Of the data set that is there.

    Example:

    >>> from keras_es.runs.identity import different
    >>> different({"speakers": 2, "level": 1.0}, {"speakers": 1, "level": 1.00001})
    'speakers: it had 2, now 1'
    """
    return ", ".join(
        f"{name}: it had {before[name]}, now {value}"
        for name, value in now.items()
        if name in before and not _same(before[name], value)
    )


def _same(before, now):
    if isinstance(now, float) and isinstance(before, int | float):
        return math.isclose(before, now, rel_tol=NEARLY)
    return before == now
