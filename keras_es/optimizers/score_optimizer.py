"""Methods that hand a search gradient to an ordinary Keras optimizer of scores."""

import keras
from keras import ops

from keras_es import _compat
from keras_es._arguments import Argument, optional
from keras_es.distribution.collectives import replica_count
from keras_es.optimizers import arguments
from keras_es.optimizers.guarded import guarded_apply
from keras_es.optimizers.search.space import full_dtype


def optimizer_argument(**kwargs):
    """Return the declaration of an argument that is a Keras optimizer or None."""
    return Argument(optional(arguments.keras_optimizer), None, **kwargs)


def settle_optimizer(owner, name, learning_rate):
    """Make the Keras optimizer of an argument that was left out: Adam.

    Args:
        owner: The `MaskOptimizer`.
        name: Name of the argument.
        learning_rate: That of Adam.

    Raises:
        ValueError: If it is the optimizer of something else too, or scales losses.
    """
    given = getattr(owner, name)
    if given is None:
        setattr(owner, name, keras.optimizers.Adam(learning_rate))
    elif isinstance(given, keras.optimizers.LossScaleOptimizer) or (
        given.loss_scale_factor is not None
    ):
        raise ValueError(
            f"`{name}` must not scale losses: a search gradient is made of losses as "
            "they are, and would be divided. Leave `LossScaleOptimizer` and "
            f"`loss_scale_factor` out. Received: {name}={given.name!r}"
        )
    for other in ("inner_optimizer", "score_optimizer", "mean_optimizer"):
        same = getattr(owner, other, None) is getattr(owner, name)
        if same and other != name:
            raise ValueError(
                f"`{name}` must be another object than `{other}`: "
                "each holds the state of its own variables. "
                f"Received: {name}={getattr(owner, name).name!r} for both"
            )


def build_slots(optimizer, variables):
    """Create the slots of an optimizer for its variables, if there are any."""
    if variables:
        _compat.record_slots(optimizer, variables)


def descended(optimizer, gradients, variables, ok):
    """Let an optimizer descend search gradients; return the new values.

    It sets the variables itself, for a Keras optimizer knows no other way.

    Args:
        optimizer: Built Keras optimizer.
        gradients: List of search gradients, the means over replicas.
        variables: List of variables.
        ok: Boolean scalar; if False nothing changes.
    """
    if variables:
        # Keras sums gradients over replicas; a search gradient is their mean already.
        gradients = [
            ops.cast(g / replica_count(), full_dtype(v))
            for g, v in zip(gradients, variables)
        ]
        guarded_apply(optimizer, gradients, variables, {}, ok)
    return [v.value for v in variables]


def that_settles(learning_rate, steps):
    """Return Adam whose learning rate falls to 0 along a cosine."""
    decay = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.Adam(decay)
