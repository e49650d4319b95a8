"""Following channels through a model's graph, and what can be cut."""

import collections
import dataclasses
from typing import Any

import keras

from keras_es import _compat
from keras_es.conversion.clone import Cut, is_graph
from keras_es.conversion.compact import (
    attention,  # noqa: F401 - its rule registers itself, as do those below
    linear,  # noqa: F401
    passing,  # noqa: F401
    shaping,
)
from keras_es.conversion.compact.channels import (
    UNKNOWN,
    CannotFollow,
    Channels,
    Tracker,
)
from keras_es.conversion.compact.rules import RULES, Step
from keras_es.layers import tree

SHARED = "it is called more than once"
TRAINS = "it is called with training=True, and then does something else"
SEVERAL = "it has more than one result"


@dataclasses.dataclass(frozen=True)
class LeftAlone:
    """A layer whose channels stay, some or all, and why.

    Attributes:
        layer: Path of the layer in the model.
        kind: Its class's name.
        reason: Why.
    """

    layer: str
    kind: str
    reason: str

    def __str__(self) -> str:
        """Return a line."""
        return f"{self.layer} ({self.kind}): {self.reason}"


def analyse(model: keras.Model) -> tuple[dict[Any, Cut], list[LeftAlone]]:
    """Find what can go.

    Args:
        model: A plain model, built.

    Returns:
        Dict from layer to its `Cut`, and the layers that are left alone.

    Raises:
        ValueError: If the model has no graph that can be made again.
    """
    ends = _compat.graph_ends(model)
    if not is_graph(model) or ends is None:
        raise ValueError(
            "Compaction follows the graph of a Sequential or functional model: "
            f"{_no_graph(model)}. Leave `compact` out, or make such a model. "
            f"Received: model {model.name!r} of class {type(model).__name__}"
        )
    analysis = _Analysis(model, *ends)
    return analysis.cuts(), analysis.left_alone()


class _Analysis:
    """One pass over a model's calls, forwards, and the solution."""

    def __init__(self, model, inputs, outputs):
        self.tracker = Tracker()
        self.steps: list[Step] = []
        self.refused: dict[Any, str] = {}
        self.nested: dict[Any, list[tuple[Any, Channels]]] = {}
        self.channels: dict[int, Channels | None] = {}
        self.calls = collections.Counter(_operations(model))
        self.paths = {id(layer): path for path, layer in tree.walk(model)}
        self.masked = any(_makes_masks(layer) for _, layer in tree.walk(model))
        for tensor in inputs:
            self.channels[id(tensor)] = self._pinned(tensor)
        self._follow_graph(model)
        for tensor in outputs:
            self.tracker.pin(self.channels[id(tensor)])
        self.solution = self.tracker.solve()

    def _pinned(self, tensor):
        """Return new channels of a tensor, None if it has no axis of known size."""
        shape = tuple(tensor.shape)
        if len(shape) < 2 or not shape[-1]:
            return None
        return self.tracker.make_pinned(shape[-1])

    def _follow_graph(self, model):
        for call in _compat.graph_calls(model):
            found = [self.channels[id(tensor)] for tensor in call.inputs]
            try:
                outputs = self._follow(call, found)
            except CannotFollow as reason:
                self.refused.setdefault(call.operation, str(reason))
                for channels in found:
                    self.tracker.pin(channels)
                outputs = [self._pinned(tensor) for tensor in call.outputs]
            for tensor, channels in zip(call.outputs, outputs, strict=True):
                self.channels[id(tensor)] = channels

    def _follow(self, call, found):
        operation = call.operation
        parts = [operation, *_layers_in(operation)]
        shared = any(self.calls[id(part)] > 1 for part in parts)
        if call.kwargs.get("training") or any(a is True for a in call.args):
            raise CannotFollow(TRAINS)
        if isinstance(operation, keras.Model):
            return self._follow_model(call, found, shared)
        rule = RULES.get(type(operation))
        if rule is None:
            raise CannotFollow(_why_not(type(operation)))
        if shared and rule.has_size:
            raise CannotFollow(SHARED)
        if any(channels is None for channels in found) and not rule.takes_unknown:
            raise CannotFollow(UNKNOWN)
        if len(call.outputs) > 1:
            raise CannotFollow(SEVERAL)
        step = Step(call, found, self.tracker, self.masked)
        step.outputs = rule.follow(step)
        self.steps.append(step)
        return step.outputs

    def _follow_model(self, call, found, shared):
        """Follow a model within the model, as if its layers stood in its place."""
        model = call.operation
        if not is_graph(model) or (ends := _compat.graph_ends(model)) is None:
            raise CannotFollow(_no_graph(model))
        if shared:
            raise CannotFollow(SHARED)
        inputs, outputs = ends
        ranks = [len(t.shape) for t in inputs] == [len(t.shape) for t in call.inputs]
        if len(inputs) != len(found) or not ranks:
            raise CannotFollow("it is called on more than its inputs")
        for tensor, channels in zip(inputs, found):
            self.channels[id(tensor)] = channels
        self.nested[model] = list(zip(inputs, found))
        self._follow_graph(model)
        return [self.channels[id(tensor)] for tensor in outputs]

    def cuts(self):
        """Return {layer: Cut}."""
        cuts: dict[Any, Cut] = {}
        for step in self.steps:
            cuts.update(RULES[type(step.layer)].cut(step, self.solution))
        for model, inputs in self.nested.items():
            shapes = [
                tuple(tensor.shape)
                if channels is None
                else (*tensor.shape[:-1], int(self.solution.stays(channels).sum()))
                for tensor, channels in inputs
            ]
            if shapes != [tuple(tensor.shape) for tensor, _ in inputs]:
                cuts[model] = Cut(None, {}, shapes)
        return cuts

    def left_alone(self):
        """Return what is left alone, in the order of the graph."""
        found = [self._line(layer, reason) for layer, reason in self.refused.items()]
        for step in self.steps:
            for channels, which, reason in step.held:
                count = int((self.solution.stays(channels) & which).sum())
                if count:
                    text = f"constant channels that stay: {count}, {reason}"
                    found.append(self._line(step.layer, text))
        return found

    def _line(self, layer, reason):
        path = self.paths.get(id(layer), layer.name)
        return LeftAlone(path, type(layer).__name__, reason)


def _operations(model):
    """Yield the id of what is called, once a call, in models within the model too.

    A layer that another one holds, such as `TimeDistributed`, is called by that one.
    """
    for call in _compat.graph_calls(model):
        operation = call.operation
        yield id(operation)
        if _is_followed(operation):
            yield from _operations(operation)
        else:
            yield from map(id, _layers_in(operation))


def _makes_masks(layer):
    """Tell whether a layer says, or may say, which time steps do not count."""
    own = not type(layer).__module__.startswith("keras.")
    masking = isinstance(layer, keras.layers.Masking)
    return own or masking or getattr(layer, "mask_zero", False)


def _is_followed(operation):
    """Tell whether an operation is a model within the model that has a graph."""
    nested = isinstance(operation, keras.Model) and is_graph(operation)
    return nested and _compat.graph_ends(operation) is not None


def _layers_in(operation):
    """Return the layers that a layer holds; those of a graph are followed instead."""
    if not isinstance(operation, keras.layers.Layer) or _is_followed(operation):
        return []
    return [layer for _, layer in tree.walk(operation)]


def _no_graph(model):
    if _compat.is_functional(model):
        return (
            "a model of a class of its own is made by that class; "
            "keras.Model(model.inputs, model.outputs) is followed"
        )
    return "it is no graph of layers: what calls what is in its own code"


def _why_not(cls):
    if cls in shaping.REASONS:
        return shaping.REASONS[cls]
    if issubclass(cls, keras.layers.Layer) and cls.__module__.startswith("keras."):
        return "there is no rule for layers of its class"
    if issubclass(cls, keras.layers.Layer):
        return "it is a layer of a class of its own"
    return "there is no rule for this operation"
