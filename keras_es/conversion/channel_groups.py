"""Which channels a graph ties together, as patterns."""

from collections.abc import Collection

import keras

from keras_es import _compat
from keras_es.conversion.allocation import check_rules, matches
from keras_es.conversion.clone import is_graph
from keras_es.conversion.compact.passing import (
    BatchNormalizationRule,
    Passing,
    PReLURule,
)
from keras_es.conversion.compact.rules import RULES
from keras_es.conversion.compact.shaping import MergeRule
from keras_es.conversion.models import check_model
from keras_es.layers import tree
from keras_es.patterns import Channel

THROUGH = (Passing, BatchNormalizationRule, PReLURule)
"""Rules of layers whose channel i is made of channel i alone."""


def channel_groups(
    model: keras.Model, exclude: Collection[str] = ()
) -> dict[str, Channel]:
    """Return a `Channel` pattern for each kernel, by the path of the weight.

    A residual sum (or product, or maximum) adds channel to channel: one that is to go
    has to be dead in every branch. Kernels whose outputs meet in such a way, and
    depthwise kernels with what they are applied to, get patterns of one group, named
    after the first of them; all others `Channel()`. Embeddings and recurrent layers are
    left out.

    Args:
        model: A built Sequential or functional model, masked or not. Models within it
            are followed too.
        exclude: List of layer paths or regular expressions of layers that are to keep
            all of their outputs, such as the last one, as for `sparsify`.

    Returns:
        A dict, for `sparsify(model, sparsity, pattern=..., exclude=...)`.

    Raises:
        ValueError: If the model has no graph that can be followed, or a rule names no
            layer with a kernel.

    Example:

    >>> x = keras.Input((8, 8, 3))
    >>> first = keras.layers.Conv2D(16, 3, padding="same", name="first")(x)
    >>> second = keras.layers.Conv2D(16, 3, padding="same", name="second")(first)
    >>> model = keras.Model(x, keras.layers.Add()([first, second]))
    >>> channel_groups(model)["second/kernel"]
    Channel(group='first/kernel')
    """
    check_model(model)
    if isinstance(exclude, str) or not isinstance(exclude, Collection):
        raise ValueError(
            "`exclude` must be a list of layer paths or regular expressions. "
            f"Received: exclude={exclude!r}"
        )
    ends = _compat.graph_ends(model)
    if not is_graph(model) or ends is None:
        raise ValueError(
            "Groups of channels are found in the graph of a Sequential or functional "
            "model. Name them yourself: pattern={'layer/kernel': Channel(group=...)}. "
            f"Received: model {model.name!r} of class {type(model).__name__}"
        )
    found = _Ties(model)
    found.follow(model)
    layers = {name: path for (_, path), name in found.kernels.items()}
    for rule in exclude:
        hit = [w for w in layers if matches(rule, w, layers[w])]
        check_rules("exclude", rule, hit, layers)
        for name in hit:
            del found.kernels["kernel", layers[name]]
    return found.patterns()


class _Ties:
    """Sets of kernels and tensors that share their channels.

    Args:
        model: The whole model.
    """

    def __init__(self, model):
        self.paths = {id(layer): path for path, layer in tree.walk(model)}
        self.parents = {}
        self.of_tensor = {}
        self.kernels = {}

    def find(self, node):
        """Return what stands for the set of a node."""
        while self.parents.setdefault(node, node) != node:
            node = self.parents[node]
        return node

    def tie(self, a, b):
        """Make one set of two; the older node stands for it."""
        self.parents[self.find(b)] = self.find(a)

    def channels(self, tensor):
        """Return the set of a tensor's last axis; one of its own if it is new."""
        return self.of_tensor.setdefault(id(tensor), ("tensor", id(tensor)))

    def follow(self, model):
        """Go through the calls of a graph."""
        for call in _compat.graph_calls(model):
            layer, output = call.operation, call.outputs[0]
            rule = RULES.get(tree.plain_class_of(layer))
            if isinstance(layer, keras.Model):
                self.follow_model(layer, call)
            elif isinstance(rule, MergeRule):
                wide = [t for t in call.inputs if t.shape[-1] == output.shape[-1]]
                for tensor in wide[1:]:
                    self.tie(self.channels(wide[0]), self.channels(tensor))
                self.of_tensor[id(output)] = self.channels(wide[0])
            elif isinstance(rule, THROUGH):
                self.of_tensor[id(output)] = self.channels(call.inputs[0])
            elif (kernel := self.kernel(layer, output)) is not None:
                self.of_tensor[id(output)] = kernel
                if isinstance(layer, keras.layers.DepthwiseConv2D):
                    if call.inputs[0].shape[-1] == output.shape[-1]:
                        self.tie(self.channels(call.inputs[0]), kernel)

    def follow_model(self, model, call):
        """Follow a model within the model, as if its layers stood in its place."""
        ends = _compat.graph_ends(model)
        if not is_graph(model) or ends is None:
            return
        inputs, outputs = ends
        for inner, outer in zip(inputs, call.inputs):
            self.of_tensor[id(inner)] = self.channels(outer)
        self.follow(model)
        for inner, outer in zip(outputs, call.outputs):
            self.of_tensor[id(outer)] = self.channels(inner)

    def kernel(self, layer, output):
        """Return the node of a layer whose kernel has a column for each channel."""
        path, plain = self.paths.get(id(layer)), tree.plain_class_of(layer)
        if path is None or not (tree.is_twin(layer) or tree.twin_of(layer)):
            return None
        if issubclass(plain, keras.layers.Embedding) or not hasattr(layer, "kernel"):
            return None
        columns = layer.kernel.shape[-1]
        if issubclass(plain, keras.layers.DepthwiseConv2D):
            columns *= layer.kernel.shape[-2]
        node = ("kernel", path)
        self.kernels.setdefault(node, f"{path}/kernel")
        # Heads of attention are columns too, and no channels of their output.
        heads = issubclass(plain, keras.layers.EinsumDense) and layer.kernel.ndim > 2
        return None if heads or columns != output.shape[-1] else node

    def patterns(self):
        """Return the pattern of each kernel."""
        sets: dict = {}
        for node, name in self.kernels.items():
            sets.setdefault(self.find(node), []).append(name)
        found = {}
        for names in sets.values():
            group = Channel(names[0]) if len(names) > 1 else Channel()
            found.update(dict.fromkeys(names, group))
        return {name: found[name] for name in self.kernels.values()}
