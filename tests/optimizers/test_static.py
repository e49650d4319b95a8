"""`Static` is plain Keras training with a mask, to the bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import Static
from tests.reference import problems

INNER = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam with clipping": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1),
    "adamw with ema": lambda: keras.optimizers.AdamW(
        0.01, weight_decay=0.1, use_ema=True, ema_momentum=0.8
    ),
    "ema that overwrites": lambda: keras.optimizers.RMSprop(
        0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
    ),
    "schedule": lambda: keras.optimizers.Lion(
        keras.optimizers.schedules.CosineDecay(0.01, 8), clipvalue=0.1
    ),
}


def plain_model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((problems.INPUTS,)),
            keras.layers.Dense(8, kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3, seed=7),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


@pytest.fixture
def graphs_as_written():
    """Keep TensorFlow from reordering products, which differs from graph to graph."""
    options = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    restored = {"disable_meta_optimizer": False} | options
    tf.config.optimizer.set_experimental_options(restored)


@pytest.mark.usefixtures("graphs_as_written")
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_without_zeros_it_is_keras_to_the_bit(inner):
    plain = plain_model()
    masked = keras_es.sparsify(plain, sparsity=0.0)
    histories = []
    for model, optimizer in ((plain, inner()), (masked, Static(inner()))):
        problems.compiled(optimizer, model, metrics=["accuracy"])
        histories.append(problems.fit(model, epochs=3, batch_size=8).history)
    for key, values in histories[0].items():
        assert histories[1][key] == values
    stripped = keras_es.strip_masks(masked)
    for a, b in zip(plain.weights, stripped.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    inner_variables = masked.optimizer.inner_optimizer.variables
    for a, b in zip(plain.optimizer.variables, inner_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_masked_out_weights_and_slots_never_move(inner):
    model = problems.compiled(Static(inner()))
    (masked,) = keras_es.masked_weights(model)
    off = ~masked.kernel_mask.numpy()
    before = masked.kernel.numpy()
    problems.fit(model, epochs=2)
    np.testing.assert_array_equal(masked.kernel.numpy()[off], before[off])
    assert np.all(masked.kernel.numpy()[~off] != before[~off])
    for slot in model.optimizer.inner.slots[id(masked.kernel)]:
        values = slot.numpy()[off]
        first = before[off] if "average" in slot.path else np.zeros_like(values)
        np.testing.assert_array_equal(values, first, err_msg=slot.path)


def test_masks_never_move():
    model = problems.compiled(Static("adam"))
    (masked,) = keras_es.masked_weights(model)
    before = masked.kernel_mask.numpy(), masked.mask_scores.numpy()
    history = problems.fit(model, epochs=2).history
    np.testing.assert_array_equal(masked.kernel_mask.numpy(), before[0])
    np.testing.assert_array_equal(masked.mask_scores.numpy(), before[1])
    assert history["mask_flip_ratio"] == [0.0, 0.0]
    assert history["sparsity"] == [0.5, 0.5]


def test_weights_train_as_if_the_kernel_were_multiplied():
    # The gradient of the masked kernel is that of a plain one times the mask.
    sparse = problems.compiled(Static(keras.optimizers.SGD(0.1)))
    (masked,) = keras_es.masked_weights(sparse)
    mask = masked.kernel_mask.numpy()
    plain = problems.compiled(keras.optimizers.SGD(0.1), keras_es.strip_masks(sparse))

    class Project(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = plain.layers[0].kernel
            kernel.assign(kernel.numpy() * mask)

    for model, callbacks in ((sparse, []), (plain, [Project()])):
        problems.fit(model, epochs=2, callbacks=callbacks)
    np.testing.assert_allclose(
        masked.effective_value(), plain.layers[0].kernel.numpy(), rtol=1e-5, atol=1e-6
    )
