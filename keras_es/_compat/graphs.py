"""Private names of functional models: which calls a model's graph is made of."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from keras.src.ops import nn, numpy

__all__ = [
    "ELEMENTWISE_OPERATIONS",
    "MERGING_OPERATIONS",
    "Call",
    "graph_calls",
    "graph_ends",
]

ELEMENTWISE_OPERATIONS: tuple[type, ...] = (
    nn.Elu,
    nn.Gelu,
    nn.HardSigmoid,
    nn.HardSilu,
    nn.LeakyRelu,
    nn.Relu,
    nn.Relu6,
    nn.Sigmoid,
    nn.Silu,
    nn.Softplus,
    numpy.Negative,
    numpy.Square,
    numpy.Tanh,
)
"""Classes of `keras.ops` called on symbolic tensors, entry by entry."""

MERGING_OPERATIONS: dict[type, str] = {
    numpy.Add: "add",
    numpy.Maximum: "maximum",
    numpy.Minimum: "minimum",
    numpy.Multiply: "multiply",
    numpy.Subtract: "subtract",
}
"""What `x + y` and the like of symbolic tensors are, with NumPy's names."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation in a graph.

    Attributes:
        operation: The layer, model or operation.
        args: Its positional arguments, symbolic tensors among them.
        kwargs: Its other arguments.
        inputs: The symbolic tensors among all of them, in turn.
        outputs: The symbolic tensors that it returned, in turn.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Any]
    outputs: list[Any]


def graph_ends(model: Any) -> tuple[list[Any], list[Any]] | None:
    """Return a graph's symbolic inputs and outputs, None if the model has no graph."""
    graph = getattr(model, "_functional", model)  # inside of a Sequential
    if not hasattr(graph, "_nodes_by_depth"):
        return None
    return list(graph.inputs), list(graph.outputs)


def graph_calls(model: Any) -> Iterator[Call]:
    """Yield the calls of a graph, each after those that make its inputs."""
    graph = getattr(model, "_functional", model)
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.operation and not node.is_input:
                arguments = node.arguments
                yield Call(
                    node.operation,
                    arguments.args,
                    arguments.kwargs,
                    list(node.input_tensors),
                    list(node.outputs),
                )
