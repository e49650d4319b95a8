"""What replicas of a `tf.distribute` strategy tell each other, and how they assign.

Without a strategy, or with one replica, every function here returns its input.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_es import _compat


def replica_count() -> int:
    """Return the number of replicas, 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def is_chosen(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether a strategy is not TensorFlow's default, be it of one replica.

    Also with one replica its variables may be assigned outside of other compiled
    functions and branches only.
    """
    with strategy.scope():
        return tf.distribute.has_strategy()


def in_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Tell whether a strategy joins several processes, each of which runs this."""
    multi = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return multi and len(strategy.extended.worker_devices) < (
        strategy.num_replicas_in_sync
    )


def replica_index() -> tf.Tensor:
    """Return the index of the replica that runs, an int32 scalar."""
    if replica_count() == 1:
        return tf.constant(0)
    context = tf.distribute.get_replica_context()
    return tf.cast(context.replica_id_in_sync_group, tf.int32)


def mean_over_replicas(tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
    """Return the mean of each tensor of a list over the replicas; None stays."""
    return _all_reduce(tf.distribute.ReduceOp.MEAN, tensors)


def sum_over_replicas(tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
    """Return the sum of each tensor of a list over the replicas."""
    return _all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def any_over_replicas(tensors: Iterable[tf.Tensor]) -> list[tf.Tensor]:
    """Return, for each boolean tensor of a list, where it is true on any replica."""
    if replica_count() == 1:
        return list(tensors)
    # Not integers: strategies reduce int32 on the host, apart from everything else. A
    # sum of ones that is rounded is still above 0.
    counts = [tf.cast(t, tf.float16) for t in tensors]
    return [c > 0.0 for c in _all_reduce(tf.distribute.ReduceOp.SUM, counts)]


def gather_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """Return the tensors of all replicas, joined along the first axis."""
    if replica_count() == 1:
        return tensor
    joined = tf.distribute.get_replica_context().all_gather(tensor, axis=0)
    # Of known shape, which the gathering forgets.
    return tf.reshape(joined, (replica_count() * tensor.shape[0], *tensor.shape[1:]))


def _all_reduce(how, tensors):
    tensors = list(tensors)
    known = [t for t in tensors if t is not None]
    if replica_count() == 1 or not known:
        return tensors
    reduced = iter(tf.distribute.get_replica_context().all_reduce(how, known))
    return [None if t is None else next(reduced) for t in tensors]


def when(condition: tf.Tensor, action: Callable[[], Any]) -> None:
    """Run `action` if a boolean scalar is true; replicas may differ in it.

    Args:
        condition: Boolean scalar tensor.
        action: Function of no arguments that assigns and does not communicate.
    """
    tf.cond(condition, lambda: _done(action()), lambda: _done(None))


def when_all(
    condition: Callable[[], tf.Tensor], action: Callable[..., Any], *args: Any
) -> None:
    """Run `action` on all replicas if a condition holds, which all share.

    Args:
        condition: Function of no arguments to a boolean scalar tensor, of variables
            that are equal on all replicas.
        action: Function that may communicate.
        *args: What each replica gives to its `action`, structures of tensors.
    """
    strategy = tf.distribute.get_strategy()
    # On TPU all replicas run one program, whose branches may hold collectives.
    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if on_tpu or not tf.distribute.has_strategy():
        when(condition(), lambda: action(*args))
        return
    # Elsewhere a branch within a replica may not: leave the replicas, and enter again.
    tf.distribute.get_replica_context().merge_call(
        lambda strategy, *args: when(
            condition(), lambda: strategy.run(action, args=args)
        ),
        args=args,
    )


def _done(_):
    return tf.constant(0)


def assign_all(pairs: Iterable[tuple[Any, Any]], ok: tf.Tensor | None = None) -> None:
    """Assign a value to each variable, on every replica.

    Args:
        pairs: List of (Keras variable, tensor). All replicas must have computed the
            same values; none are sent.
        ok: Boolean scalar; if False variables keep their values.
    """
    pairs = [
        (v.value if isinstance(v, keras.Variable) else v, value) for v, value in pairs
    ]
    if ok is not None:
        pairs = [(v, tf.where(ok, tf.cast(value, v.dtype), v)) for v, value in pairs]
    if not pairs:
        return
    if not tf.distribute.has_strategy():
        for variable, value in pairs:
            variable.assign(value)
        return
    variables, values = zip(*pairs)

    def update(strategy, values):
        for variable, value in zip(variables, values):
            strategy.extended.update(
                variable, lambda v, x: v.assign(x), args=(value,), group=False
            )

    _compat.maybe_merge_call(update, tf.distribute.get_strategy(), values)
