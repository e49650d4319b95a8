"""Programs of XLA around windows."""

import tensorflow as tf


def called(function, jit_compile):
    """Call a function without arguments, compiled by XLA if that is wanted."""
    if not jit_compile:
        return function()
    return tf.function(function, autograph=False, jit_compile=True)()


def windows(model, count):
    """Return what `fit` calls without data: one program of many windows, loop and all.

    To start a program takes longer than many a window, and Keras starts one for each.

    Args:
        model: The `UnrolledModel`.
        count: Windows of a call.
    """

    def window(i):
        model.train_step(None)
        return (i + 1,)

    @tf.function(autograph=False, jit_compile=True)
    def program():
        tf.while_loop(lambda i: i < count, window, [0], parallel_iterations=1)
        return model.get_metrics_result()

    return lambda iterator: program()
