"""Checks of the arguments that optimizers of masks share."""

import keras

from keras_es import _compat

_INNER_ONLY = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
    "learning_rate",
)


def refuse_unknown(owner, kwargs):
    """Raise for an argument that an optimizer does not have.

    Args:
        owner: Name of the optimizer's class.
        kwargs: The arguments.

    Raises:
        ValueError: If there are any.
    """
    for key in kwargs:
        hint = (
            f"Set it on the inner optimizer: {owner}(keras.optimizers.Adam({key}=...))."
            if key in _INNER_ONLY
            else f"See help(keras_es.optimizers.{owner})."
        )
        raise ValueError(
            f"{owner} has no argument `{key}`. {hint} Received: {key}={kwargs[key]!r}"
        )


def check_integer(name, value, minimum=None):
    """Return an integer.

    Raises:
        ValueError: If it is none, or below `minimum`.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or (minimum is not None and value < minimum):
        bound = "" if minimum is None else f" of at least {minimum}"
        raise ValueError(
            f"`{name}` must be an integer{bound}. Received: {name}={value!r}"
        )
    return value


def check_inner(inner_optimizer, mask_optimizer, evolves_weights=False):
    """Return the Keras optimizer of the weights.

    Args:
        inner_optimizer: Optimizer, its name or its config.
        mask_optimizer: The class that it must not belong to.
        evolves_weights: Whether None will do, for weights that are evolved.

    Raises:
        ValueError: If it cannot be used.
    """
    if inner_optimizer is None and evolves_weights:
        return None
    if inner_optimizer is None:
        raise ValueError(
            "`inner_optimizer` must be a Keras optimizer, its name or its config, "
            'such as "adam": it trains the weights. To evolve the weights too, take '
            "keras_es.optimizers.OpenES(None) or another strategy that can. "
            "Received: inner_optimizer=None"
        )
    optimizer = keras.optimizers.get(inner_optimizer)
    if isinstance(optimizer, mask_optimizer):
        raise ValueError(
            "`inner_optimizer` must be an optimizer of weights, not of masks. "
            f"Received: inner_optimizer={optimizer.name!r}"
        )
    if _compat.innermost_optimizer(optimizer).gradient_accumulation_steps:
        raise ValueError(
            "`gradient_accumulation_steps` cannot be used with moving masks: gradients "
            "gathered under one mask would be applied under another. Use a larger "
            "batch instead. Received: gradient_accumulation_steps="
            f"{_compat.innermost_optimizer(optimizer).gradient_accumulation_steps}"
        )
    return optimizer


def refuse_in_pure(
    batch_mode, members_per_step, steps_per_pair, *, sparsity_schedule, magnitude_pull
):
    """Raise for arguments that have no meaning where weights are evolved."""
    if batch_mode != "full":
        raise ValueError(
            "With inner_optimizer=None all members see the whole batch, which they "
            'share the work of: batch_mode must be "full" or None. '
            f"Received: batch_mode={batch_mode!r}"
        )
    turns = {"members_per_step": members_per_step, "steps_per_pair": steps_per_pair}
    for key, value in turns.items():
        if value is not None:
            raise ValueError(
                "With inner_optimizer=None a generation is one step; "
                f"`members_per_chunk` bounds its memory. Received: {key}={value!r}"
            )
    if sparsity_schedule is not None:
        raise ValueError(
            "With inner_optimizer=None masks are as sparse as wanted from the first "
            f"generation. Received: sparsity_schedule={sparsity_schedule!r}"
        )
    if magnitude_pull is not None:
        raise ValueError(
            "With inner_optimizer=None weights and scores are moved by losses alone. "
            f"Received: magnitude_pull={magnitude_pull!r}"
        )


def check_members(members, population_size):
    """Return `members_per_step`, an even divisor of the population, or None."""
    if members is None:
        return None
    check_integer("members_per_step", members, minimum=2)
    if members % 2 or population_size % members:
        raise ValueError(
            "`members_per_step` must be even and divide population_size="
            f"{population_size}. Received: members_per_step={members}"
        )
    return members


def check_schedule(name, value):
    """Return a non-negative float or a schedule.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(value, dict):
        value = keras.saving.deserialize_keras_object(value)
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or value < 0:
        raise ValueError(
            f"`{name}` must be a number of at least 0 or a LearningRateSchedule. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def check_share(name, value):
    """Return a float in [0, 1] or a schedule.

    Raises:
        ValueError: If it is neither.
    """
    value = check_schedule(name, value)
    if isinstance(value, float) and value > 1.0:
        raise ValueError(
            f"`{name}` must be a number in [0, 1] or a LearningRateSchedule. "
            f"Received: {name}={value!r}"
        )
    return value


def value_at(value, generation):
    """Return a number as it is, a schedule at a generation as a float32 scalar."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.ops.cast(value(generation), "float32")
    return value


def check_decay(name, value):
    """Return the decay of a running mean as a float.

    Raises:
        ValueError: If it is not in [0, 1).
    """
    if not 0.0 <= value < 1.0:
        raise ValueError(
            f"`{name}` must be a number in [0, 1). Received: {name}={value!r}"
        )
    return float(value)


def serialize_schedule(value):
    """Return a float or None as it is, a schedule as its Keras config."""
    if value is None or isinstance(value, float):
        return value
    return keras.saving.serialize_keras_object(value)


def get_function(fitness):
    """Return the function of a fitness, from its name or config; None stays."""
    if isinstance(fitness, (dict, str)):
        fitness = keras.losses.get(fitness)
    if fitness is not None and not callable(fitness):
        raise ValueError(
            "`fitness` must be None (the model's loss), the name of a Keras loss or "
            f"a function (y, y_pred) -> per-example values. Received: {fitness!r}"
        )
    return fitness


def serialize_function(fitness):
    """Return the name or config of a fitness."""
    return None if fitness is None else keras.losses.serialize(fitness)
