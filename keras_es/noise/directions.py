"""Directions along which a model is differentiated: of its weights, of its outputs.

A direction is a function of (seed, step, index), as the noise of a member of pure
evolution is: nothing is stored, and a run that goes on from a file draws the same.
"""

import contextlib
import dataclasses
import functools
import math
from typing import Any

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es._compat.vectorizing import depending_on
from keras_es.layers.masked_weight import effective_weights
from keras_es.noise import layer_calls
from keras_es.ops import directional, noise, philox

PROBE = 1009
"""Examples of a trace that tells which axes are of examples: no size of another."""


@dataclasses.dataclass(frozen=True)
class Directions:
    """Random directions with independent coordinates of mean 0 and variance 1.

    Args:
        seed: Integer.
        law: Key of `ops.directional.LAWS`.
        step: Integer scalar, the step that they are of.
    """

    seed: int
    law: str
    step: Any

    def of_weights(self, shapes, draws):
        """Return directions of some weights, a list of [draws, *shape].

        Args:
            shapes: Dict from which of the weights it is to its static shape.
            draws: [draws] integers below 2**32.
        """
        keys = [noise.stream_key(self.seed, f"direction {i}") for i in shapes]
        positions = philox.stream(keys, self.step, draws)
        drawn = directional.drawn_together(self.law, list(shapes.values()), positions)
        return [
            tf.ensure_shape(v, (draws.shape[0], *shape))
            for v, shape in zip(drawn, shapes.values())
        ]

    def of_output(self, index, y, draws):
        """Return directions of one output of a layer, [draws, *shape of y].

        Args:
            index: Which of the calls of layers it is.
            y: The output.
            draws: [draws] integers below 2**32.
        """
        drawn = self._draw(f"output direction {index}", tf.shape(y), draws)
        return tf.ensure_shape(drawn, (draws.shape[0], *y.shape))

    def place(self, size):
        """Return an integer in [0, size), drawn for the step.

        Args:
            size: Integer scalar, at least 1.
        """
        key = noise.stream_key(self.seed, "share of a direction")
        drawn = noise.uniform((), noise.counter_seed(key, self.step, 0))
        place = tf.cast(drawn * tf.cast(size, tf.float32), size.dtype)
        return tf.minimum(place, size - 1)

    def _draw(self, stream, shape, draws):
        key = noise.stream_key(self.seed, stream)
        return directional.LAWS[self.law](shape, philox.stream(key, self.step, draws))


@dataclasses.dataclass
class Output:
    """One call of a layer that is linear in its kernel.

    Attributes:
        layer: The layer.
        x: Its input.
        kernel: W, as the layer read it.
        y: x W + b, before the activation.
        reached: Where the loss can depend on y: not where a ReLU is at rest.
    """

    layer: keras.layers.Layer
    x: Any
    kernel: Any
    y: Any
    reached: Any

    @property
    def variables(self):
        """The kernel's variable, and the bias if there is one."""
        return _variables(self.layer)

    def gradients(self, by_output):
        """Return what a gradient by y says of the kernel, and of the bias if any."""
        by_output = tf.cast(by_output, self.y.dtype)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.kernel)
            product = layer_calls.product(self.layer, self.x, self.kernel)
        found = [tape.gradient(product, self.kernel, output_gradients=by_output)]
        if layer_calls.bias_of(self.layer) is not None:
            axes = list(range(by_output.shape.rank - 1))
            found.append(tf.reduce_sum(by_output, axis=axes))
        return found


def layers_with_directions(model, x):
    """Return the layers whose outputs are no more unknowns than their weights.

    A kernel with `fan_in` weights for each output has as many unknowns as an example
    has positions, if directions are of outputs. Left out are layers whose kernel or
    bias is regularized or read by another layer (tied weights), for the loss then
    depends on it in other ways; and those that are called within a loop, or with
    another first axis than that of the examples.

    Args:
        model: Built Keras model.
        x: A batch of inputs. The model is traced on the side; nothing runs.

    Returns:
        List of layers, in the order of their calls.
    """
    layers, found, refused = layer_calls.linear_layers(model), [], set()
    given = [i for i in keras.tree.flatten(x) if i is not None]
    examples = PROBE if given[0].shape[0] is None else given[0].shape[0]

    def call(graph, layer, x, kernel, y):
        positions, fan_in = y.shape[1:-1], math.prod(layer.kernel.shape[:-1])
        if not any(layer is other for other in found):
            found.append(layer)
        inside = getattr(x, "graph", None) is not graph
        inside = inside or y.shape[0] != examples or None in positions
        if inside or math.prod(positions) > fan_in:
            refused.add(id(layer))
            return y
        return layer_calls.product(layer, x, tf.zeros(kernel.shape, kernel.dtype))

    def probe(*inputs):
        waiting = iter(inputs)
        inputs = keras.tree.map_structure(
            lambda i: None if i is None else next(waiting), x
        )
        here = functools.partial(call, tf.compat.v1.get_default_graph())
        values = {
            id(v): (v, tf.identity(tf.convert_to_tensor(v.value)))
            for layer in layers
            for v in _variables(layer)
        }
        scope = keras.StatelessScope(list(values.values()), collect_losses=True)
        with scope, effective_weights(), layer_calls.calls_through(layers, here):
            outputs = _compat.forward(model, inputs, training=True)
        # Calls have no weights of theirs: whoever knows these has read them apart.
        ends = [
            t for t in keras.tree.flatten([outputs, scope.losses]) if tf.is_tensor(t)
        ]
        for layer in found:
            knowing = depending_on(*(values[id(v)][1] for v in _variables(layer)))
            if any(end.op in knowing for end in ends):
                refused.add(id(layer))

    specs = [tf.TensorSpec([examples, *i.shape[1:]], i.dtype) for i in given]
    tf.function(probe, autograph=False).get_concrete_function(*specs)
    taken = {id(v) for la in found if id(la) in refused for v in _variables(la)}
    return [la for la in found if not any(id(v) in taken for v in _variables(la))]


def _variables(layer):
    """Return the variable behind a layer's kernel, and its bias if there is one."""
    bias, kernel = layer_calls.bias_of(layer), layer_calls.kernel_variable(layer)
    return [kernel] if bias is None else [kernel, bias]


@contextlib.contextmanager
def recorded_outputs(layers):
    """Yield a list to which each call of some layers adds its `Output`."""
    found: list[Output] = []

    def call(layer, x, kernel, y):
        if getattr(layer, "activation", None) is keras.activations.relu:
            reached = y > 0
        else:
            reached = tf.constant(True)
        found.append(Output(layer, x, kernel, y, reached))
        return y

    with layer_calls.calls_through(layers, call):
        yield found


@contextlib.contextmanager
def moved_outputs(layers, changes):
    """Let calls of some layers add a change to x W + b, or None, for each in turn."""
    waiting = iter(changes)

    def call(layer, x, kernel, y):
        change = next(waiting)
        return y if change is None else y + tf.cast(change, y.dtype)

    with layer_calls.calls_through(layers, call):
        yield
