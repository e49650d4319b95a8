"""A stateful Keras model as a task: its states, its stream and its metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es import unrolled

ROWS, FEATURES, PARTICLES, W = 2, 3, 4, 5


def network(rows=ROWS, time=None, **kwargs):
    inputs = keras.Input(batch_shape=(rows, time, FEATURES))
    options = dict(stateful=True, return_sequences=True) | kwargs
    gru = keras.layers.GRU(4, recurrent_activation="hard_sigmoid", **options)
    return keras.Model(inputs, keras.layers.Dense(2)(gru(inputs)))


def windows(count=4, rows=PARTICLES * ROWS, length=W):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, rows, length, FEATURES)).astype("float32")
    y = (x[..., 0].cumsum(axis=2) > 0).astype("int32")
    return tf.data.Dataset.from_tensor_slices((x, y))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner = unrolled.UnrolledModel(unrolled.Recurrent(network(), loss, horizon=20))
    learner.compile(
        unrolled.NRES(
            keras.optimizers.Adam(0.02), particles=PARTICLES, unroll_length=W,
            sigma=0.05, locked=True,
        ),
        metrics=["accuracy"],
        jit_compile=False,
    )  # fmt: skip
    return learner


def test_evaluate_is_keras_on_the_same_sequences(model):
    data = windows(2, rows=2 * ROWS, length=7)
    found = model.evaluate(data, verbose=0, return_dict=True)
    plain = keras.models.clone_model(model.task.model)
    plain.set_weights(model.task.model.get_weights())
    losses, right = [], []
    for x, y in data:
        for part in range(2):
            rows = slice(part * ROWS, part * ROWS + ROWS)
            for layer in plain.layers:
                if isinstance(layer, keras.layers.RNN):
                    layer.reset_state()
            outputs = plain(x[rows]).numpy()
            losses.append(model.task.loss(y[rows], outputs).numpy())
            right.append(np.argmax(outputs, -1) == y[rows].numpy())
    np.testing.assert_allclose(found["loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(found["accuracy"], np.mean(right), rtol=1e-6)


def test_dropout_rests_and_targets_need_no_last_axis():
    """As in Keras, for functions of one's own and layers that draw nevertheless."""
    inputs = keras.Input(batch_shape=(ROWS, None, FEATURES))
    layer = keras.layers.GRU(
        1, stateful=True, return_sequences=True, dropout=0.5, recurrent_dropout=0.5
    )
    plain = keras.Model(inputs, layer(inputs))

    def distance(y, outputs):
        return tf.abs(y - outputs)

    learner = unrolled.UnrolledModel(unrolled.Recurrent(plain, distance, horizon=20))
    estimator = unrolled.NRES("sgd", particles=1, unroll_length=W, sigma=0.1)
    learner.compile(estimator, jit_compile=False)
    x = np.random.default_rng(0).normal(size=(ROWS, 3, FEATURES)).astype("float32")
    y = x[..., 0]
    found = learner.evaluate(tf.data.Dataset.from_tensors((x, y)), verbose=0)
    expected = np.abs(plain(x, training=False).numpy()[..., 0] - y).mean()
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_fit_learns_with_metrics_and_validation(model):
    data = windows().cache()
    before = model.evaluate(data, verbose=0, return_dict=True)
    history = model.fit(
        data.repeat(), steps_per_epoch=4, epochs=30, validation_data=data, verbose=0,
        validation_freq=30,
    ).history  # fmt: skip
    assert set(history) >= {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history["val_loss"][-1] < before["loss"] - 0.05
    assert history["accuracy"][-1] > history["accuracy"][0]
    # A particle's states go on from window to window.
    time = model.particles.read().time.numpy()
    np.testing.assert_array_equal(time, 20)
    # The model that was trained is as it was given, but for its weights.
    assert not model.task.model.layers[1].unroll


def test_a_saved_learner_has_its_model(model, tmp_path):
    model.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    data = windows(1)
    for a, b in zip(loaded.task.model.get_weights(), model.task.model.get_weights()):
        np.testing.assert_array_equal(a, b)
    found = loaded.evaluate(data, verbose=0, return_dict=True)
    assert found == model.evaluate(data, verbose=0, return_dict=True)


def test_models_that_cannot_be_stepped_are_refused():
    inputs = keras.Input((None, FEATURES))
    plain = keras.Model(inputs, keras.layers.GRU(3, return_sequences=True)(inputs))
    with pytest.raises(ValueError, match="`stateful=True`"):
        unrolled.Recurrent(plain, "mse", horizon=4)
    with pytest.raises(ValueError, match="must be a built Keras model"):
        unrolled.Recurrent(keras.Sequential(), "mse", horizon=4)
    for wrong in ("return_sequences", "stateful"):
        with pytest.raises(ValueError, match=f"Received: layer 'gru.*{wrong}=False"):
            unrolled.Recurrent(network(**{wrong: False}), "mse", horizon=4)
    with pytest.raises(ValueError, match=r"any number of time steps.*\(2, 5, 3\)"):
        unrolled.Recurrent(network(time=5), "mse", horizon=4)
    inputs = keras.Input(batch_shape=(2, None, FEATURES))
    gru = keras.layers.GRU(3, stateful=True, return_sequences=True)
    both = keras.Model(inputs, keras.layers.Bidirectional(gru)(inputs))
    with pytest.raises(ValueError, match="must not look ahead.*Bidirectional"):
        unrolled.Recurrent(both, "mse", horizon=4)
    with pytest.raises(ValueError, match="`loss` must be.*loss=None"):
        unrolled.Recurrent(network(), None, horizon=4)

    hidden = gru(inputs)
    task = unrolled.Recurrent(keras.Model(inputs, [hidden, hidden]), "mse", horizon=4)
    step = tf.zeros((2, FEATURES))
    with pytest.raises(ValueError, match="must return one tensor"):
        task.step(task.initial_state(None), 0, None, (step, step))


def test_data_must_have_the_rows_of_the_model(model):
    with pytest.raises(ValueError, match="batches of 2 rows.*Received: 3"):
        model.fit(windows(1, rows=3 * PARTICLES), verbose=0)
    with pytest.raises(ValueError, match="multiple of 2.*Received: 3 rows"):
        model.evaluate(windows(1, rows=3), verbose=0)
    with pytest.raises(ValueError, match=r"needs data of \(x, y\)"):
        model.fit(windows(1).map(lambda x, y: x), verbose=0)
    with pytest.raises(ValueError, match=r"data of \(x, y\).*tuple of 3"):
        model.fit(windows(1).map(lambda x, y: (x, y, y)), verbose=0)
