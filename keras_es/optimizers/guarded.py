"""An optimizer step that may touch some of the state only."""

import contextlib

import tensorflow as tf

from keras_es import _compat
from keras_es.distribution.collectives import assign_all


def guarded_apply(optimizer, gradients, variables, allowed, ok, shares=None):
    """Run `optimizer.apply` so that it changes only what it is allowed to.

    Args:
        optimizer: Built Keras optimizer.
        gradients: List of gradients, None where there is none.
        variables: List of variables.
        allowed: Dict from id of a variable (weight or slot) to a boolean tensor of
            its shape; variables without an entry use `ok`.
        ok: Boolean scalar.
        shares: Dict from id of a weight to two scalars, how much of its update it gets
            where it is allowed (None for just that) and elsewhere; just that and 0 for
            weights without an entry.
    """
    shares = shares or {}
    known = [(g, v) for g, v in zip(gradients, variables) if g is not None]
    if not known:
        return
    state = list(variables) + list(optimizer.variables)
    by_elements = _compat.steps_by_elements(optimizer)
    slots = _slots_set_by_methods(optimizer) if by_elements else set()
    state = [v for v in state if id(v) not in slots]
    before = [tf.identity(v.value) for v in state]
    if not by_elements:
        assign_all(_without_resting(state, before, allowed, shares))
    with _guarded_slots(optimizer, slots, allowed, ok):
        optimizer.apply([g for g, _ in known], [v for _, v in known])
    moved = []
    for v, old in zip(state, before):
        inside, outside = shares.get(id(v), (None, None))
        inside = v.value if inside is None else _partly(v, old, inside)
        outside = old if outside is None else _partly(v, old, outside)
        moved.append((v, tf.where(allowed.get(id(v), ok), inside, outside)))
    assign_all(moved)


def _without_resting(state, before, allowed, shares):
    """Return what lets an optimizer take what rests for 0: it may take norms of all."""
    return [
        (v, tf.where(allowed[id(v)], old, tf.zeros_like(old)))
        for v, old in zip(state, before)
        if id(v) in allowed and id(v) not in shares
    ]


def _partly(variable, old, share):
    """Return the old value and a share of the way to the new one."""
    return old + tf.cast(share, old.dtype) * (variable.value - old)


def _slots_set_by_methods(optimizer):
    """Return the ids of the slots that change through `optimizer.assign` and the like.

    Keras's own optimizers keep to that. Within a strategy the methods run where the
    masks of a replica are not at hand.
    """
    inner = _compat.innermost_optimizer(optimizer)
    chosen = tf.distribute.has_strategy()
    if chosen or not type(inner).__module__.startswith("keras."):
        return set()
    # The base class alone sets its moving averages of weights (EMA) otherwise.
    slots = {id(v) for v in inner.variables if len(v.shape) and not is_average(v)}
    return slots - _compat.recomputed_slots(inner)


def is_average(slot):
    """Tell whether a slot is the moving average (EMA) of its weight."""
    return slot.name.endswith("_average")


@contextlib.contextmanager
def _guarded_slots(optimizer, slots, allowed, ok):
    """Let the optimizer set its slots only where that is allowed.

    To put them back after the step would do as well, but the step of the weight is
    computed from the new slots: XLA then has to copy the old ones, a fifth of the time
    of a small step.
    """
    if not slots:  # replicas are traced in turns and would replace each other's methods
        yield
        return
    inner = _compat.innermost_optimizer(optimizer)
    names = ("assign", "assign_add", "assign_sub")
    before = {name: vars(inner).get(name) for name in names}

    def guarded(name, new_value):
        plain = getattr(inner, name)

        def method(variable, value):
            if id(variable) not in slots:
                return plain(variable, value)
            old = tf.convert_to_tensor(variable.value)
            new = new_value(old, tf.cast(tf.convert_to_tensor(value), old.dtype))
            variable.assign(tf.where(allowed.get(id(variable), ok), new, old))

        # Not `inner.assign = ...`: Keras would track the attribute as state.
        object.__setattr__(inner, name, method)

    guarded("assign", lambda old, value: value)
    guarded("assign_add", tf.add)
    guarded("assign_sub", tf.subtract)
    try:
        yield
    finally:
        for name, method in before.items():
            object.__delattr__(inner, name)
            if method is not None:
                object.__setattr__(inner, name, method)
