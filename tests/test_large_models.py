"""Models as people have them go through fit, save, load, strip and export."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import Turns
from tests.marks import release, slow


def mobile_net():
    return keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), weights=None, classes=4
    )


def res_net():
    return keras.applications.ResNet50(input_shape=(32, 32, 3), weights=None, classes=4)


def transformer():
    """Two encoder blocks over tokens, and a classifier."""
    tokens = keras.Input((12,), dtype="int32")
    x = keras.layers.Embedding(20, 16)(tokens)
    for _ in range(2):
        y = keras.layers.MultiHeadAttention(4, 4, dropout=0.1)(x, x)
        x = keras.layers.LayerNormalization()(x + y)
        y = keras.layers.Dense(32, activation="gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(16)(y))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, keras.layers.Dense(4, activation="softmax")(x))


def data(model):
    rng = np.random.default_rng(0)
    shape = (4, *model.input_shape[1:])
    if model.inputs[0].dtype == "int32":
        x = rng.integers(0, 20, shape).astype("int32")
    else:
        x = rng.normal(size=shape).astype("float32")
    return x, np.arange(4)


CASES = [
    release(mobile_net, 53, "SNES", id="MobileNetV2"),
    release(res_net, 54, "SNES", id="ResNet50"),
    slow(transformer, 13, "GuidedNES", id="transformer"),
]


@pytest.mark.parametrize(("make", "count", "method"), CASES)
def test_fit_save_load_strip_and_export(make, count, method, tmp_path):
    sparse = keras_es.sparsify(make(), 0.9)
    assert len(keras_es.masked_weights(sparse)) == count
    x, y = data(sparse)
    optimizer = getattr(keras_es.optimizers, method)(
        "sgd", population_size=2, turns=Turns(steps=1)
    )
    sparse.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    logs = sparse.fit(x, y, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    for masked in keras_es.masked_weights(sparse):
        kept = masked.kernel_mask.numpy().sum()
        assert kept == masked.nnz == max(1, round(masked.size * (1 - 0.9)))
    expected = sparse(x)

    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.generation.numpy() == 2
    np.testing.assert_array_equal(again(x), expected)
    assert (
        keras_es.sparsity_report(again).nonzero
        == keras_es.sparsity_report(sparse).nonzero
    )

    plain = keras_es.strip_masks(again)
    np.testing.assert_array_equal(plain(x), expected)
    assert not isinstance(plain, keras_es.ESMixin)
    plain.export(tmp_path / "saved_model", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(served.serve(x), expected, rtol=1e-5, atol=1e-6)
