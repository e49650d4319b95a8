"""Replicas whose members fail by their gradients, and epochs in which all fail."""

import pytest

from tests.distribution.devices import run_on_devices

pytestmark = pytest.mark.slow

SCRIPT = """
class Root(keras.layers.Layer):
    def call(self, x):
        return keras.ops.sqrt(keras.ops.abs(x))  # an infinite slope at 0

x, y = data(32)
x[:8] = 0.0  # in the first step the first replica fails by its gradient
x[16:] = np.nan  # in the second all fail
with REPLICAS.scope():
    model = keras_es.sparsify(mlp(Root()), 0.5, seed=0)
    compiled(model, Static(keras.optimizers.Adam(0.01)), metrics=["accuracy"])
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
history = model.fit(batches, verbose=0).history
assert history["nonfinite_members"] == [3.0] and history["skipped_steps"] == [1.0]
assert np.isfinite(history["loss"]) and np.isnan(history["population_loss"])
for variable in model.variables + model.optimizer.variables:
    assert np.isfinite(np.asarray(variable, "float32")).all(), variable.path
assert_equal_replicas(model)
history = model.fit(batches.skip(1), verbose=0).history
for name in ("loss", "accuracy", "population_loss", "population_best"):
    assert np.isnan(history[name]), name
"""


def test_failing_members_of_replicas():
    run_on_devices(2, SCRIPT)
