"""Two replicas of `MirroredStrategy`, here two logical CPU devices.

In a process of its own: devices must be set before TensorFlow starts.
"""

import os
import subprocess
import sys

import pytest

PREAMBLE = """
import keras
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras_es
from keras_es.optimizers import *
from tests.training.common import *

TWO = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
ONE = tf.distribute.get_strategy()

def train(strategy, build, optimizer, dataset, sparsity=0.5, epochs=2):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    with strategy.scope():
        model = keras_es.sparsify(build(), sparsity, seed=0)
        compiled(model, optimizer(), metrics=["accuracy"])
    history = model.fit(dataset, epochs=epochs, shuffle=False, verbose=0).history
    return model, history

def batches(n, size):
    return tf.data.Dataset.from_tensor_slices(data(n)).batch(size)

def assert_equal_replicas(model):
    for variable in model.weights + model.optimizer.variables:
        if "/held_" in variable.path:
            continue  # the masks of a replica's own members
        parts = TWO.experimental_local_results(variable.value)
        np.testing.assert_array_equal(*parts, err_msg=variable.path)

def assert_close(one, two):
    for a, b in zip(one.weights, two.weights, strict=True):
        a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
        np.testing.assert_allclose(b, a, 1e-4, 1e-5)
"""

SCRIPTS = {
    # Masks of ones: a step is one of plain Keras, whose batch the replicas share.
    "weights": """
        optimizer = lambda: MASK_OPTIMIZERS["snes"](sgd())
        one, want = train(ONE, mlp, optimizer, batches(32, 8), 0.0)
        two, got = train(TWO, mlp, optimizer, batches(32, 8), 0.0)
        for key in ("loss", "accuracy", "population_loss"):
            np.testing.assert_allclose(got[key], want[key], 1e-4, err_msg=key)
        assert_close(one, two)
        assert_equal_replicas(two)
    """,
    # Both replicas get the same examples. Two replicas of two members are then one
    # of four: noise, search, moving statistics, dropout and logs.
    "search": """
        x, y = data(8)
        once = tf.data.Dataset.from_tensors((x, y)).repeat(6)
        twice = tf.data.Dataset.from_tensors(
            (np.concatenate([x, x]), np.concatenate([y, y]))
        ).repeat(6)

        def build():
            return mlp(
                keras.layers.BatchNormalization(), keras.layers.Dropout(0.2, seed=3)
            )

        def search(size):
            return lambda: OpenES(
                sgd(), size, "full", fitness_shaping="raw", sigma=0.3,
                steps_per_pair=1,
                score_optimizer=keras.optimizers.SGD(1.0),
            )

        one, want = train(ONE, build, search(4), once)
        two, got = train(TWO, build, search(2), twice)
        assert want["mask_flip_ratio"] != [0.0, 0.0]
        for key in want:
            np.testing.assert_allclose(got[key], want[key], 1e-3, 1e-5, err_msg=key)
        assert_close(one, two)
        assert_equal_replicas(two)
    """,
    "methods": """
        for method in (GuidedES, Static, StraightThrough):
            model, history = train(
                TWO, lambda: mlp(keras.layers.BatchNormalization()),
                lambda: method(keras.optimizers.Adam(0.02)), batches(32, 16), epochs=1
            )
            assert np.isfinite(history["loss"]).all()
            assert history["nonfinite_members"] == [0.0]
            for masked in keras_es.masked_weights(model):
                mask = masked.kernel_mask.numpy()
                assert mask.sum() == masked.nnz
                decoded = masked.expand(masked.decode(masked.mask_scores.value))
                np.testing.assert_array_equal(mask, decoded)
            assert_equal_replicas(model)
        model.evaluate(*data(), verbose=0)
        model.predict(data()[0], verbose=0)
    """,
    # Replicas see other examples, and the mean of their gradients moves all masks.
    "scheduled": """
        often = keras_es.schedules.ConstantUpdates(0.6, update_every=3)
        falling = keras_es.schedules.PolynomialSparsity(7, update_every=2)
        methods = {
            "rigl": lambda: RigL(sgd(), update_schedule=often),
            "set": lambda: SET(sgd(), update_schedule=often),
            "pruning": lambda: GradualMagnitude(sgd(), sparsity_schedule=falling),
            "scores": lambda: StraightThrough(
                sgd(), score_optimizer=keras.optimizers.SGD(100.0)
            ),
        }
        for name, method in methods.items():
            one, want = train(ONE, mlp, method, batches(32, 8))
            two, got = train(TWO, mlp, method, batches(32, 8))
            for key in ("loss", "sparsity", "mask_flip_ratio"):
                np.testing.assert_allclose(got[key], want[key], 1e-4, err_msg=name)
            for a, b in zip(*map(keras_es.masked_weights, (one, two))):
                np.testing.assert_array_equal(
                    a.kernel_mask.numpy(), b.kernel_mask.numpy(), err_msg=name
                )
            assert_close(one, two)
            assert_equal_replicas(two)
    """,
    "failed members": """
        x, y = data(16)
        x[0] = np.nan
        dataset = tf.data.Dataset.from_tensors((x, y)).repeat(3)
        model, history = train(
            TWO, mlp, lambda: SNES(sgd(), 2, "full"), dataset, epochs=1
        )
        # The replica that sees the example fails, the other one goes on.
        assert history["nonfinite_members"] == [6.0]
        assert history["skipped_steps"] == [0.0]
        for variable in model.weights + model.optimizer.variables:
            assert np.isfinite(np.asarray(variable, "float32")).all(), variable.path
        assert_equal_replicas(model)
    """,
    # Of the last batch the second replica gets nothing.
    "no examples": """
        model, history = train(
            TWO, mlp, lambda: SNES(sgd(), 2), batches(17, 16), epochs=1
        )
        assert np.isfinite(history["loss"]).all()
        assert history["nonfinite_members"] == [2.0]
        assert history["skipped_steps"] == [0.0]
        assert_equal_replicas(model)
    """,
    "xla": """
        with TWO.scope():
            model = keras_es.sparsify(mlp(keras.layers.Dropout(0.2)), 0.5)
            model.compile(SNES(sgd(), 2), cross_entropy(), jit_compile=True)
        history = model.fit(batches(32, 16), shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        assert_equal_replicas(model)
        model.evaluate(*data(), verbose=0)
    """,
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_two_replicas(script):
    body = "\n".join(line[8:] for line in SCRIPTS[script].splitlines())
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + body],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
