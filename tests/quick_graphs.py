"""What short runs can do without: most of the price of tracing a small model."""

import os
import threading


def make_graphs_quickly():
    """Leave out TensorFlow's rewriting of graphs where `python -m tests` says so.

    And the lines of Python that made each operation, which are a tenth of the time.
    """
    if os.environ.get("KERAS_ES_TESTS_OPTIMIZE") != "0":
        return
    import tensorflow as tf
    from tensorflow.python.util import tf_stack

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # In a thread, whose stack is short and has no code from a string in it: an error
    # in a graph could not be shown.
    found = []
    thread = threading.Thread(target=lambda: found.append(tf_stack.extract_stack()))
    thread.start()
    thread.join()
    tf_stack.extract_stack = lambda stacklevel=1: found[0]
