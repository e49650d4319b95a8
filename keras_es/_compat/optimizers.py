"""Private names of optimizers: which of their variables belong to which weight."""

from typing import Any

import keras

__all__ = [
    "MultiOptimizer",
    "innermost_optimizer",
    "record_slots",
    "recomputed_slots",
    "steps_by_elements",
]

MultiOptimizer = getattr(keras.optimizers, "MultiOptimizer", ())
"""The class, or what no optimizer is an instance of in a Keras without it."""


_BY_ELEMENTS = (
    "SGD", "Adam", "AdamW", "Adamax", "Nadam", "Adagrad", "Adadelta", "RMSprop", "Ftrl",
    "Lion",
)  # fmt: skip


def steps_by_elements(optimizer):
    """Tell whether the step of a weight depends on no other weight than itself.

    That of `Lamb` and `Adafactor` does on the norm of all weights of a kernel, that of
    `Muon` on the whole momentum; of a class of the user's nothing is known.
    """
    cls = type(innermost_optimizer(optimizer))
    return any(cls is getattr(keras.optimizers, name) for name in _BY_ELEMENTS)


def innermost_optimizer(optimizer):
    """Unwrap loss scaling."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def record_slots(optimizer, variables):
    """Build an optimizer and return which of its variables belong to which weight.

    Keras names slots after their weight but keeps no map; the one place where all
    optimizers create them is `add_variable_from_reference`.

    Args:
        optimizer: Unbuilt Keras optimizer.
        variables: Weights to build it with.

    Returns:
        (slots, starts): dict from id of the weight to the list of its slots, and dict
        from id of a slot to the initializer that it started from.

    Raises:
        ValueError: If the optimizer is built: its slots can no longer be told apart.
    """
    slots: dict[int, list] = {}
    starts: dict[int, Any] = {}
    inner = innermost_optimizer(optimizer)
    if inner.built:
        raise ValueError(
            f"The optimizer {inner.name!r} already holds the state of other weights, "
            "from another `compile`. Give a new one: "
            f"{type(inner).__name__}.from_config(optimizer.get_config()). "
            f"Received: a built optimizer of {len(inner.variables)} variables"
        )
    original = inner.add_variable_from_reference

    def recording(reference_variable, *args, **kwargs):
        if kwargs.get("name") == "average":
            # Keras starts moving averages (EMA) from 0 and sets them in the first
            # step, in which the average of a masked-out weight may not move.
            kwargs["initializer"] = lambda shape, dtype: keras.ops.cast(
                reference_variable, dtype
            )
        slot = original(reference_variable, *args, **kwargs)
        slots.setdefault(id(reference_variable), []).append(slot)
        start = keras.initializers.get(kwargs.get("initializer", "zeros"))
        starts[id(slot)] = start
        return slot

    # Not `inner.add_... = ...`: Keras would track the attribute as state.
    object.__setattr__(inner, "add_variable_from_reference", recording)
    try:
        optimizer.build(variables)
    finally:
        object.__delattr__(inner, "add_variable_from_reference")
    _keep_divisors_positive(inner)
    return slots, starts


def recomputed_slots(optimizer):
    """Return the ids of the slots that hold nothing from one step to the next.

    `Adafactor` writes the product of its row and column means there and divides by
    what it then reads: it has to find what it wrote, at masked-out weights too.
    """
    if not isinstance(optimizer, keras.optimizers.Adafactor):
        return set()
    return {id(v) for v in optimizer._v if v is not None}


def _keep_divisors_positive(optimizer):
    """Let `Adafactor` divide 0 by a small number where a row and a column are all 0.

    The product of their means, 1e-30 each, is no float32 number above 0, and one NaN
    reaches every weight through the root mean square of the step. Rows and columns of
    zeros are what masks are made of.
    """
    velocities = recomputed_slots(optimizer)
    if not velocities:
        return
    plain = optimizer.assign

    def assign(variable, value):
        if id(variable) in velocities:
            least = 6e-8 if variable.dtype == "float16" else 1e-37
            value = keras.ops.maximum(value, keras.ops.cast(least, value.dtype))
        plain(variable, value)

    # Not `optimizer.assign = ...`: Keras would track the attribute as state.
    object.__setattr__(optimizer, "assign", assign)
