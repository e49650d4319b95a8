"""What the replicas of a model send each other in a step, from the traced graph."""

import contextlib

import keras
import tensorflow as tf


@contextlib.contextmanager
def recorded():
    """Yield a list of (kind, bytes, conditional), in order of tracing.

    Every replica's part is in it. `conditional` says whether it is in a branch, that is
    not in every step.
    """
    context = tf.distribute.ReplicaContext
    kept = {name: getattr(context, name) for name in ("all_reduce", "all_gather")}
    record = []

    def recording(name):
        def call(self, *args, **kwargs):
            value = kwargs.get("value", args[1 if name == "all_reduce" else 0])
            record.append((name, _bytes(value), _in_branch()))
            return kept[name](self, *args, **kwargs)

        return call

    for name in kept:
        setattr(context, name, recording(name))
    try:
        yield record
    finally:
        for name, function in kept.items():
            setattr(context, name, function)


def _bytes(value):
    return sum(t.shape.num_elements() * t.dtype.size for t in keras.tree.flatten(value))


def _in_branch():
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if getattr(graph, "name", "").startswith("cond_"):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False
