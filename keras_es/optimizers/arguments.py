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


def check_inner(inner_optimizer, mask_optimizer):
    """Return the Keras optimizer of the weights.

    Args:
        inner_optimizer: Optimizer, its name or its config.
        mask_optimizer: The class that it must not belong to.

    Raises:
        ValueError: If it cannot be used.
    """
    if inner_optimizer is None:
        raise ValueError(
            "`inner_optimizer` must be a Keras optimizer, its name or its config, "
            'such as "adam": it trains the weights. Received: inner_optimizer=None'
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
