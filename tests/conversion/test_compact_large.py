"""Compaction of whole networks."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_es
import models
from keras_es.conversion.compact.counting import multiplications
from keras_es.patterns import Block, Channel

pytestmark = pytest.mark.slow


def moved(model, seed=0):
    """Let normalizations be what training makes of them; dead channels vary then."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.beta.shape
            layer.beta.assign(rng.normal(size=shape) * 0.3)
            layer.moving_mean.assign(rng.normal(size=shape) * 0.1)
    return model


def check(model, bound, **arguments):
    """Compact a masked copy; return the report."""
    sparse = keras_es.sparsify(moved(model), 0.5, **arguments)
    report = keras_es.compaction_report(sparse)
    x = np.random.default_rng(1).normal(size=(2, *model.inputs[0].shape[1:]))
    expected = keras.ops.convert_to_numpy(sparse(x))
    found = keras.ops.convert_to_numpy(report.model(x))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
    assert report.ratios["multiplications"] < bound, report
    return report


@pytest.mark.parametrize("make, bound", [("MobileNetV2", 0.75), ("ResNet50", 0.6)])
def test_networks_of_keras(make, bound):
    build = getattr(keras.applications, make)
    model = moved(build(input_shape=(32, 32, 3), weights=None, classes=10))
    rng = np.random.default_rng(2)
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None and layer.name != "predictions":
            outputs = layer.filters if hasattr(layer, "filters") else kernel.shape[-2]
            mask = rng.permutation(outputs) < outputs // 2
            shape = (-1, 1) if isinstance(layer, layers.DepthwiseConv2D) else (-1,)
            kernel.assign(kernel * mask.reshape(shape))
    compact = keras_es.strip_masks(model, compact=True)
    x = rng.normal(size=(2, 32, 32, 3))
    np.testing.assert_allclose(compact(x), model(x), atol=1e-5, rtol=1e-4)
    assert multiplications(compact) < bound * multiplications(model)


def test_the_cifar_convnet():
    model = models.ARCHITECTURES["cifar_convnet"].build((32, 32, 3), 10)
    report = check(model, 0.32, pattern=Channel(), exclude=["logits"])
    assert [one.kind for one in report.left_alone] == ["Conv2D"] * 5


def test_a_transformer_encoder():
    tokens = keras.Input((16,), dtype="int32")
    x = layers.Embedding(50, 64)(tokens)
    for index in range(2):
        x = layers.LayerNormalization()(
            x + layers.MultiHeadAttention(8, 8, name=f"attention_{index}")(x, x)
        )
        y = layers.Dense(256, "gelu", name=f"wide_{index}")(x)
        x = layers.LayerNormalization()(x + layers.Dense(64)(y))
    model = keras.Model(tokens, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))
    sparse = keras_es.sparsify(
        model,
        pattern={".*/value": Block(64, 8), "wide_.*": Channel()},
        allocation={".*/value": 0.5, "wide_.*": 0.5},
    )
    report = keras_es.compaction_report(sparse)
    x = np.arange(32).reshape(2, 16)
    np.testing.assert_allclose(report.model(x), sparse(x), atol=1e-5)
    for index in (0, 1):
        assert report.model.get_layer(f"attention_{index}").num_heads == 4
    assert abs(report.ratios["multiplications"] - 0.5) < 0.01
