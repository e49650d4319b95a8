"""What short runs can do without: most of the price of tracing a small model."""

import functools
import os


def make_graphs_quickly():
    """Leave out TensorFlow's rewriting of graphs where `python -m tests` says so.

    And the lines of Python that made each operation, a tenth of the time: operations
    have none, as those of a graph that was loaded.
    """
    if os.environ.get("KERAS_ES_TESTS_OPTIMIZE") != "0":
        return
    import tensorflow as tf
    from tensorflow.python.framework import ops

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    ops._create_c_op = functools.partial(ops._create_c_op, extract_traceback=False)
