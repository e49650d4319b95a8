"""Runs scripts in processes that have several logical CPU devices.

Devices have to be set before TensorFlow starts, so that each number of devices has a
process. It runs one script after the other: to start takes longer than most of them.
"""

import atexit
import contextlib
import io
import multiprocessing
import os
import traceback

from tests.marks import release

COUNTS = [2, release(4)]
SECONDS = 600

PREAMBLE = """
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_es.distribution import strategies
from tests.quick_graphs import make_graphs_quickly
strategies.split_cpu({count})
make_graphs_quickly()
import keras_es
from keras_es.distribution import collectives
from keras_es.noise import *
from keras_es.optimizers import *
from tests.training.common import *

R = {count}
REPLICAS = tf.distribute.MirroredStrategy([f"CPU:{{i}}" for i in range(R)])
ONE = tf.distribute.get_strategy()

def alike(x, y, steps):
    # Return data for one replica, and data that gives each replica the same.
    each = np.concatenate([x] * R), np.concatenate([y] * R)
    return [tf.data.Dataset.from_tensors(d).repeat(steps) for d in ((x, y), each)]

def assert_equal_replicas(model):
    for variable in model.weights + model.optimizer.variables:
        if "/held_" in variable.path:  # members are each replica's own
            continue
        first, *others = REPLICAS.experimental_local_results(variable.value)
        for other in others:
            np.testing.assert_array_equal(first, other, err_msg=variable.path)
"""


def run_on_devices(count, script):
    """Run a script after PREAMBLE; return what it printed."""
    _, connection = _process(count)
    connection.send(script)
    if not connection.poll(SECONDS):
        _end(count)
        raise AssertionError(f"a script did not end within {SECONDS} seconds: {script}")
    try:
        printed, error = connection.recv()
    except EOFError:
        process, _ = _RUNNING[count]
        process.join()
        _end(count)
        raise AssertionError(f"died with exit code {process.exitcode}") from None
    assert error is None, error[-3000:]
    return printed


_RUNNING = {}
"""Number of devices: (process, our end of the line to it)."""


def _process(count):
    if count not in _RUNNING:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(count, theirs), daemon=True)
        process.start()
        theirs.close()
        _RUNNING[count] = process, ours
    return _RUNNING[count]


def _end(count):
    process, connection = _RUNNING.pop(count)
    connection.close()
    process.kill()
    process.join()


@atexit.register
def _end_all():
    for count in list(_RUNNING):
        _end(count)


def _serve(count, connection):
    """Run scripts as they come, each with names, layers and policy of its own."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    names = {}
    exec(PREAMBLE.format(count=count), names)
    while True:
        try:
            script = connection.recv()
        except EOFError:
            return
        names["keras"].backend.clear_session()
        names["keras"].config.set_dtype_policy("float32")
        names["keras"].utils.set_random_seed(0)
        printed, error = io.StringIO(), None
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(script, f"<on {count} devices>", "exec"), dict(names))
        except BaseException:
            error = traceback.format_exc()
        connection.send((printed.getvalue(), error))
