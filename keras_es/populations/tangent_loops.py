"""Recurrent layers that carry (state, tangent) through their loop over time.

TensorFlow's forward mode has no rule for a loop that writes to arrays. So the loop
itself runs on pairs: inputs, states and outputs are joined with their tangents, and
each step of the cell is differentiated in forward mode by itself, inside of the loop.
Nothing of the steps before is kept.
"""

import contextlib

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.layers import tree
from keras_es.layers.masked_weight import effective_weights


@contextlib.contextmanager
def loops_with_tangents(model, accumulator, zero):
    """Let the loops of a model's recurrent layers carry tangents in this scope.

    Args:
        model: Keras model, or None.
        accumulator: The active `tf.autodiff.ForwardAccumulator`.
        zero: Scalar 0, whose tangent by the accumulator is 1.
    """
    layers = [
        layer
        for _, layer in ([] if model is None else tree.walk(model))
        if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]
    for layer in layers:
        loop = _Loop(layer, accumulator, zero)
        object.__setattr__(layer, "inner_loop", loop)
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "inner_loop")


class _Loop:
    """Stands for `inner_loop` of a recurrent layer."""

    def __init__(self, layer, accumulator, zero):
        self.layer, self.accumulator, self.zero = layer, accumulator, zero

    def __call__(self, sequences, initial_state, mask, training=False):
        layer, states = self.layer, keras.tree.flatten(initial_state)
        cell = _PairCell(layer.cell, self.tangent, initial_state)
        object.__setattr__(layer, "cell", cell)
        try:
            last, outputs, states = keras.layers.RNN.inner_loop(
                layer, self.pair(sequences), [self.pair(s) for s in states], mask,
                training,
            )  # fmt: skip
        finally:
            object.__setattr__(layer, "cell", cell.cell)
        states = [self.joined(s) for s in keras.tree.flatten(states)]
        states = keras.tree.pack_sequence_as(initial_state, states)
        return self.joined(last), self.joined(outputs), states

    def tangent(self, value):
        """Return the tangent of a tensor, zeros if it has none."""
        found = self.accumulator.jvp(value)
        return tf.zeros_like(value) if found is None else found

    def pair(self, value):
        """Join a tensor and its tangent, which the loop is given as plain numbers."""
        value = tf.convert_to_tensor(value)
        both = [tf.stop_gradient(value), tf.stop_gradient(self.tangent(value))]
        return tf.concat(both, axis=-1)

    def joined(self, pair):
        """Return the tensor of a pair, with the tangent of it."""
        value, tangent = tf.split(pair, 2, axis=-1)
        # The sum is `value`; its tangent is that of `zero` times `tangent`.
        return value + tf.cast(self.zero, value.dtype) * tangent


class _PairCell:
    """A cell of pairs: (x, dx), (h, dh) -> (y, dy), next (h, dh)."""

    def __init__(self, cell, tangent, initial_state):
        self.cell, self.structure = cell, initial_state
        self.variables = list(cell.trainable_variables)
        values = [tf.convert_to_tensor(v) for v in self.variables]
        self.values = [tf.stop_gradient(v) for v in values]
        self.tangents = [tf.stop_gradient(tangent(v)) for v in values]
        moving = {id(v) for v in self.variables}
        # As the scope around the loop has them: frozen weights may be masked there.
        self.resting = [
            (v, tf.convert_to_tensor(v)) for v in cell.variables if id(v) not in moving
        ]

    def __call__(self, inputs, states, **kwargs):
        states = keras.tree.flatten(states)
        pairs = [tf.split(p, 2, axis=-1) for p in (inputs, *states)]
        primals, tangents = (list(part) for part in zip(*pairs))
        mapping = [*zip(self.variables, self.values), *self.resting]
        zero, one = tf.zeros(()), tf.ones(())
        with (
            tf.autodiff.ForwardAccumulator(
                [*primals, *self.values, zero], [*tangents, *self.tangents, one]
            ) as accumulator,
            _compat.custom_gradients_with_tangents(accumulator, zero),
            keras.StatelessScope(state_mapping=mapping),
            effective_weights(),
            _own_weights(self.cell),
        ):
            states = keras.tree.pack_sequence_as(self.structure, primals[1:])
            output, states = self.cell(primals[0], states, **kwargs)

        def pair(value):
            found = accumulator.jvp(value)
            found = tf.zeros_like(value) if found is None else found
            return tf.concat([value, found], axis=-1)

        return pair(output), [pair(s) for s in keras.tree.flatten(states)]


def _own_weights(cell):
    """Return a scope in which a masked cell reads its weights anew, in the loop."""
    hold = getattr(cell, "hold_effective_weights", None)
    return contextlib.nullcontext() if hold is None else hold()
