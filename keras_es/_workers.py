"""What the processes of a strategy of several workers tell each other."""

import tensorflow as tf

from keras_es.distribution import in_multi_worker


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
