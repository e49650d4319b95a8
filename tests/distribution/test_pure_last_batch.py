"""A last batch that leaves a replica without examples; losses of several outputs."""

import pytest

from tests.distribution.devices import run_on_devices

pytestmark = pytest.mark.slow

SCRIPT = """
def two_outputs():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, "tanh")(inputs)
    outputs = {"p": keras.layers.Dense(3, name="p")(hidden), "q": hidden}
    return keras_es.es_model(keras.Model(inputs, outputs))

x, y = data(17)

def train(strategy, optimizer, examples=slice(None)):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    with strategy.scope():
        model = two_outputs()
        compiled(model, optimizer(), loss={"p": cross_entropy(), "q": "mse"})
    targets = {"p": y[examples], "q": x[examples, :4]}
    dataset = tf.data.Dataset.from_tensor_slices((x[examples], targets)).batch(16)
    return model, model.fit(dataset, verbose=0).history

# What the loss updates of the metrics, by plain gradients as well.
one, want = train(ONE, sgd, slice(16))
many, got = train(REPLICAS, sgd, slice(16))
for key in ("loss", "p_loss", "q_loss"):
    np.testing.assert_allclose(got[key], want[key], 1e-5, err_msg=key)

many, got = train(REPLICAS, lambda: OpenES(None, 4, noise=LowRank(1)))
assert got["nonfinite_members"] == [4.0] and got["skipped_steps"] == [0.0]
assert np.all(np.array([got["p_loss"], got["q_loss"]]) > 0.1)
assert all(np.isfinite(w).all() for w in many.get_weights())
assert_equal_replicas(many)
"""


def test_replicas_without_examples():
    run_on_devices(2, SCRIPT)
