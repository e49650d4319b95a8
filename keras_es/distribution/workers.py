"""What the processes of a strategy of several workers tell each other."""

import contextlib
import hashlib
import json

import tensorflow as tf

from keras_es.distribution.collectives import in_multi_worker
from keras_es.distribution.rendezvous import WorkersError


def is_chief(strategy):
    """Tell whether this process is the one of all workers that writes files."""
    if not in_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def tell_workers(strategy, numbers):
    """Return the numbers that each worker has told, after all have come here.

    Args:
        strategy: The strategy.
        numbers: List of numbers below 2**53, of the same length on each worker.

    Returns:
        A list with the list of each worker.
    """
    numbers = [float(n) for n in numbers]
    if not in_multi_worker(strategy):
        return [numbers]

    def gather(row):
        context = tf.distribute.get_replica_context()
        return context.all_gather(row[None], axis=0)

    rows = tf.function(lambda row: strategy.run(gather, args=(row,)), autograph=False)
    rows = strategy.experimental_local_results(rows(tf.constant(numbers, tf.float64)))
    return rows[0].numpy().tolist()


def check_same(strategy, config):
    """Check that all workers were given the same configuration.

    Args:
        strategy: The strategy.
        config: Dict that JSON can hold.

    Raises:
        WorkersError: If they were not.
    """
    text = json.dumps(config, sort_keys=True)
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
    told = [row[0] for row in tell_workers(strategy, [digest])]
    if len(set(told)) > 1:
        raise WorkersError(
            "the workers were given different flags; start all of them by one command. "
            f"Received: {sum(t != told[0] for t in told)} that differ from worker 0"
        )


@contextlib.contextmanager
def losses_named(strategy):
    """Turn what TensorFlow raises when a worker is lost into a `WorkersError`."""
    try:
        yield
    except tf.errors.OpError as error:
        if not in_multi_worker(strategy):
            raise
        reason = " ".join(str(error.message).split())
        reason = reason.partition("Collective ops is aborted by: ")[2] or reason
        raise WorkersError(
            "another worker was lost; start all of them again, and the same command "
            f"goes on from the last checkpoint ({reason[:150]})"
        ) from error
