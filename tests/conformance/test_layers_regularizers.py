"""A regularizer counts the effective weights and no others."""

import numpy as np

import keras_es
from keras_es.layers.embedding import MaskedTable
from tests.conformance.masked_layers import built, every_layer, every_layer_and_pattern


def regularizers(cls):
    """Name the kernel regularizers as this layer does."""
    if cls is keras_es.layers.MaskedDepthwiseConv2D:
        return {"depthwise_regularizer": "l2"}
    if issubclass(cls, MaskedTable):
        return {"embeddings_regularizer": "l2"}
    names = {"kernel_regularizer": "l2"}
    if hasattr(cls, "cell_class"):
        names["recurrent_regularizer"] = "l2"
    return names


@every_layer_and_pattern
def test_only_effective_weights_are_counted(cls, pattern):
    layer = built(cls, pattern, **regularizers(cls))
    expected = sum(
        0.01 * np.sum(np.square(m.kernel.numpy() * m.kernel_mask.numpy()))
        for m in keras_es.masked_weights(layer)
    )
    np.testing.assert_allclose(float(sum(layer.losses)), expected, rtol=1e-5)


@every_layer
def test_the_config_has_the_users_regularizer(cls):
    layer = built(cls, **regularizers(cls))
    again = cls.from_config(layer.get_config())
    for name in regularizers(cls):
        assert layer.get_config()[name]["class_name"] == "L2"
        assert again.get_config()[name] == layer.get_config()[name]
