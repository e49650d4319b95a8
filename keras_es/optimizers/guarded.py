"""An optimizer step that may touch some of the state only."""

import tensorflow as tf

from keras_es.distribution import assign_all


def guarded_apply(optimizer, gradients, variables, allowed, ok):
    """Run `optimizer.apply`, then put back what it was not allowed to change.

    Args:
        optimizer: Built Keras optimizer.
        gradients: List of gradients, None where there is none.
        variables: List of variables.
        allowed: Dict from id of a variable (weight or slot) to a boolean tensor of
            its shape; variables without an entry use `ok`.
        ok: Boolean scalar.
    """
    state = list(variables) + list(optimizer.variables)
    before = [tf.identity(v.value) for v in state]
    known = [(g, v) for g, v in zip(gradients, variables) if g is not None]
    if not known:
        return
    optimizer.apply([g for g, _ in known], [v for _, v in known])
    assign_all(
        [
            (v, tf.where(allowed.get(id(v), ok), v.value, old))
            for v, old in zip(state, before)
        ]
    )
