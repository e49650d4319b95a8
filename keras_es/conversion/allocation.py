"""How a wanted sparsity is divided among weights."""

import math
from collections.abc import Mapping
from typing import Any

from keras_es.layers.sparse_layer import check_sparsity
from keras_es.layers.tree import matches


def uniform(shapes: dict[str, tuple], sparsity: float) -> dict[str, float]:
    """Give every weight the same sparsity.

    Args:
        shapes: Dict from weight path to its shape.
        sparsity: Number in [0, 1).

    Returns:
        Dict from weight path to sparsity.
    """
    return dict.fromkeys(shapes, sparsity)


def erk(shapes: dict[str, tuple], sparsity: float) -> dict[str, float]:
    """Erdos-Renyi-kernel allocation: larger weights get sparser.

    The density of a weight is proportional to
    (n_in + n_out + k_w + k_h)/(n_in n_out k_w k_h), capped at 1; the factor is such
    that the number of non-zeros over all weights is (1 - sparsity) of their size.

    Args:
        shapes: Dict from weight path to its shape (kernel axes, inputs, outputs).
        sparsity: Number in [0, 1).

    Returns:
        Dict from weight path to sparsity.

    References:
        Evci et al. 2020, Rigging the lottery, arXiv 1911.11134.

    Example:

    >>> out = erk({"a": (100, 100), "b": (10, 10)}, 0.5)
    >>> out["b"], round(out["a"], 3)
    (0.0, 0.505)
    """
    raw = {path: sum(shape) / math.prod(shape) for path, shape in shapes.items()}
    return _in_proportion(raw, shapes, sparsity)


def square_root(
    shapes: dict[str, tuple], sparsity: float, units: dict[str, int] | None = None
) -> dict[str, float]:
    """Give each weight active units in proportion to the square root of all its units.

    Larger weights get sparser, as with `erk`, and of single weights equally much if
    n_in = n_out. ERK has the sum of the two sides where this has their geometric mean,
    so it calls a kernel with many inputs and few outputs, as that behind a flattened
    image, small: of a convnet with 5 x 5 x 8 x 16 and 784 x 10 weights it leaves 0.7 %
    of the first and 6.7 % of the second at a sparsity of 95 %, this 6.2 % and 4.0 %.

    The density of a weight is proportional to n**(-1/2), n the number of its units,
    capped at 1; the factor is such that the number of non-zeros over all weights is
    (1 - sparsity) of their size. A channel or a block counts once, however large it is.

    Args:
        shapes: Dict from weight path to its shape.
        sparsity: Number in [0, 1).
        units: Dict from weight path to the number of its units; None where each weight
            is one.

    Returns:
        Dict from weight path to sparsity.

    Example:

    >>> out = square_root({"a": (400, 100), "b": (10, 10)}, 0.5)
    >>> out["b"], round(out["a"], 3)
    (0.0, 0.501)
    """
    units = units or {path: math.prod(shape) for path, shape in shapes.items()}
    raw = {path: units[path] ** -0.5 for path in shapes}
    return _in_proportion(raw, shapes, sparsity)


def _in_proportion(raw, shapes, sparsity):
    """Return sparsities with densities in proportion to `raw`, capped at 1."""
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    wanted = (1.0 - sparsity) * sum(sizes.values())
    full: set[str] = set()
    while True:
        free = [p for p in shapes if p not in full]
        rest = wanted - sum(sizes[p] for p in full)
        unit = sum(raw[p] * sizes[p] for p in free)
        factor = rest / unit if unit else 0.0
        over = [p for p in free if factor * raw[p] > 1.0]
        if not over:
            break
        full.update(over)
    return {p: 0.0 if p in full else 1.0 - factor * raw[p] for p in shapes}


ALLOCATIONS = {"uniform": uniform, "erk": erk, "square_root": square_root}


def allocate(allocation, shapes, sparsity, layers, units=None):
    """Return the sparsity of each weight.

    Args:
        allocation: "uniform", "erk", "square_root", or a dict from a layer path, a
            weight path or a regular expression of either to a sparsity. Weights that no
            rule names get `sparsity`, or stay dense (and unmasked) if that is None.
        shapes: Dict from weight path to shape.
        sparsity: Number in [0, 1), or None with a dict.
        layers: Dict from weight path to the path of its layer.
        units: Dict from weight path to the number of its units, for "square_root".

    Returns:
        Dict from weight path to sparsity, or None for a weight that stays dense.

    Raises:
        ValueError: If the allocation is unknown, or a rule names nothing.
    """
    if isinstance(allocation, Mapping):
        result = dict.fromkeys(shapes, sparsity)
        for rule, value in allocation.items():
            hit = [p for p in shapes if matches(rule, p, layers[p])]
            check_rules("allocation", rule, hit, layers)
            result.update(dict.fromkeys(hit, check_sparsity(value, f"{rule!r}")))
        return result
    if not isinstance(allocation, str) or allocation not in ALLOCATIONS:
        raise ValueError(
            f"`allocation` must be one of {sorted(ALLOCATIONS)} or a dict from layer "
            f"path to sparsity. Received: allocation={allocation!r}"
        )
    if not shapes:  # All patterns fix their sparsities, and there may be none to share.
        return {}
    if allocation == "square_root":
        return square_root(shapes, sparsity, units)
    return ALLOCATIONS[allocation](shapes, sparsity)


def is_rules(value: Any) -> bool:
    """Tell whether a value is a dict of rules, and not a serialized object."""
    return isinstance(value, Mapping) and "class_name" not in value


def choose(what, rules, paths, default, layers):
    """Return {path: value} for a value or a dict of rules; the last match wins."""
    if not is_rules(rules):
        return dict.fromkeys(paths, default if rules is None else rules)
    result = dict.fromkeys(paths, default)
    for rule, value in rules.items():
        hit = [p for p in paths if matches(rule, p, layers[p])]
        check_rules(what, rule, hit, layers)
        result.update(dict.fromkeys(hit, value))
    return result


def check_rules(what, rule, hit, layers):
    """Refuse a rule of an argument `what` that is none, or that hits nothing."""
    if not isinstance(rule, str):
        raise ValueError(
            f"A rule of `{what}` must be a string, the path of a layer or weight or a "
            f"regular expression. Received: {rule!r}"
        )
    if not hit:
        raise ValueError(
            f"A rule of `{what}` names no layer that can be masked. The layers are "
            f"{sorted(set(layers.values()))}; embeddings are among them with "
            f"`include_embeddings=True`. Received: {rule!r}"
        )
