"""Inputs that no perturbed weight has touched: their products x W are computed once."""

import dataclasses

import keras
import tensorflow as tf
from keras import ops

from keras_es._compat.vectorizing import depending_on
from keras_es.noise.layer_calls import finish, product, replaced_calls


@dataclasses.dataclass(frozen=True)
class Shared:
    """An input that no perturbed weight has touched, and its product x W."""

    x: object
    product: object


def find_shared(layers, variables, function, read=()):
    """Find the layers whose input is the same for all members.

    The function is called once with the weights as they are, marked by a zero added to
    each; an input that does not depend on the mark is shared. All else falls away when
    the graph is compiled. Without one (`run_eagerly`) nothing is shared.

    Args:
        layers: Dict from id of a kernel to its layer.
        variables: All perturbed variables; of active entries `weight_read` is read.
        function: Called without arguments; calls the model.
        read: Variables that may be read as they are, whether perturbed or not.

    Returns:
        Dict from id of a kernel to its `Shared`, the set of all operations that differ
        between members, and a dict from id of a kernel to (layer, list of the
        (x, x W) of its calls under the weights as they are).
    """
    mark = tf.identity(tf.zeros(()))
    weights = [getattr(v, "weight_read", v) for v in variables]
    mapping = [(v, tf.convert_to_tensor(v.value)) for v in read]
    mapping += [(v, _marked(v, mark)) for v in weights]
    calls = {key: [] for key in layers}

    def recorded(key, layer):
        def call(inputs, *args, **kwargs):
            x = ops.convert_to_tensor(inputs)
            y = product(layer, x, layer.kernel)
            calls[key].append((x, y))
            return finish(layer, y)

        return call

    with keras.StatelessScope(state_mapping=mapping, collect_losses=True):
        with replaced_calls(
            {k: (layer, recorded(k, layer)) for k, layer in layers.items()}
        ):
            function()
    if tf.executing_eagerly():
        own = _called_within_loops(layers, variables, function, read)
        seen = {k: (layers[k], pairs) for k, pairs in calls.items() if k not in own}
        return {}, set(), seen
    depending, found = depending_on(mark), {}
    for key, pairs in calls.items():
        inputs = [x for x, _ in pairs]
        if len(inputs) == 1 and not _is_of(inputs[0], depending):
            kernel = ops.cast(layers[key].kernel.value, inputs[0].dtype)
            found[key] = Shared(inputs[0], product(layers[key], inputs[0], kernel))
    seen = {
        key: (layers[key], pairs)
        for key, pairs in calls.items()
        if not any(_is_within(x, mark.graph) for x, _ in pairs)
    }
    return found, depending, seen


def _called_within_loops(layers, variables, function, read):
    """Return the keys of layers that a graph would call inside of a loop.

    Without a graph a loop is one of Python, and each of its calls looks like any other.
    What cannot be traced is only done without a graph, and compares with nothing.
    """
    within: set = set()

    def trace():
        seen = find_shared(layers, variables, function, read)[2]
        within.update(set(layers) - set(seen))

    if not layers:
        return within
    try:
        tf.function(trace, autograph=False).get_concrete_function()
    except Exception:
        return set()
    return within


def _marked(variable, mark):
    value = tf.convert_to_tensor(variable.value)
    return value + tf.cast(mark, value.dtype)


def _is_within(tensor, graph):
    """Tell whether a tensor is inside of a loop or function that a graph calls."""
    inner = getattr(tensor, "graph", None)
    while inner is not None and inner is not graph:
        inner = getattr(inner, "outer_graph", None)
        if inner is graph:
            return True
    return False


def _is_of(tensor, operations):
    return tf.is_symbolic_tensor(tensor) and tensor.op in operations
