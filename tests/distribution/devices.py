"""Runs a script in a process of its own that has several logical CPU devices.

Devices have to be set before TensorFlow starts.
"""

import os
import subprocess
import sys

import pytest

from tests.distribution.launch import ROOT

COUNTS = [2, pytest.param(4, marks=pytest.mark.slow)]

PREAMBLE = """
import keras
import numpy as np
import tensorflow as tf
from keras_es.distribution import strategies
strategies.split_cpu({count})
import keras_es
from keras_es.distribution import collectives
from keras_es.noise import *
from keras_es.optimizers import *
from tests.training.common import *

R = {count}
REPLICAS = tf.distribute.MirroredStrategy([f"CPU:{{i}}" for i in range(R)])
ONE = tf.distribute.get_strategy()

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
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE.format(count=count) + script],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
