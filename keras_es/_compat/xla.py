"""What XLA can compile, which TensorFlow does not tell in public."""

import functools

import tensorflow as tf

try:
    from tensorflow.python.framework import kernels
except ImportError:  # moved: every operation counts as known
    kernels = None

__all__ = ["unknown_to_xla"]

_OF_GRAPHS = {"Placeholder", "_Arg", "_Retval"}
"""Operations that stand for what goes in and out, and are no part of a program."""


def unknown_to_xla(graph):
    """Return the types of the operations of a graph that XLA has no program for.

    Operations of the functions that the graph calls count too. Not found is what XLA
    refuses for other reasons, such as shapes that depend on values.

    Args:
        graph: `tf.Graph`.
    """
    if kernels is None:
        return set()
    definition = graph.as_graph_def()
    nodes = list(definition.node)
    for function in definition.library.function:
        nodes.extend(function.node_def)
    called = {f.signature.name for f in definition.library.function}
    skipped = _OF_GRAPHS | called
    return {n.op for n in nodes if n.op not in skipped and not _is_known(n)}


def _is_known(node):
    types = {name: value.type for name, value in node.attr.items() if value.type}
    return any(
        all(types.get(name, allowed[0]) in allowed for name, allowed in kernel)
        for kernel in _programs(node.op)
    )


@functools.cache
def _programs(operation):
    """Return what XLA has for a type of operation: [(attribute, allowed types)]."""
    device = _load_xla()
    return [
        [(c.name, list(c.allowed_values.list.type)) for c in kernel.constraint]
        for kernel in kernels.get_registered_kernels_for_op(operation).kernel
        if kernel.device_type == device
    ]


@functools.cache
def _load_xla():
    """Compile something, for XLA names its operations then; return its device."""
    with tf.init_scope():
        tf.function(lambda: tf.constant(1.0) + 1.0, jit_compile=True)()
    gpu = bool(tf.config.list_logical_devices("GPU"))
    return "XLA_GPU_JIT" if gpu else "XLA_CPU_JIT"
