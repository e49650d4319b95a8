"""A regularizer counts the effective weights and no others; so does a constraint."""

import keras
import numpy as np

import keras_es
from keras_es import optimizers
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


@every_layer_and_pattern
def test_effective_weights_are_constrained_and_others_by_themselves(cls, pattern):
    names = [n.replace("regularizer", "constraint") for n in regularizers(cls)]
    bound = keras.constraints.UnitNorm()
    layer = built(cls, pattern, **dict.fromkeys(names, bound))
    for m in keras_es.masked_weights(layer):
        before, mask = m.kernel.numpy(), m.kernel_mask.numpy()
        m.kernel.assign(m.kernel.constraint(m.kernel))
        expected = np.where(mask, bound(before * mask), bound(before * ~mask))
        np.testing.assert_allclose(m.kernel, expected, rtol=1e-5)


def test_a_constraint_holds_after_each_step_and_each_move_of_masks():
    dense = keras.layers.Dense(4, kernel_constraint="unit_norm")
    plain = keras.Sequential([keras.Input((8,)), dense])
    model = keras_es.sparsify(plain, 0.5, pattern=keras_es.patterns.Rows())
    moving = optimizers.StraightThrough("sgd", keras.optimizers.SGD(9.0))
    model.compile(moving, "mse", jit_compile=False)
    (weight,) = keras_es.masked_weights(model)
    x, flips = np.random.default_rng(0).normal(size=(8, 8)), 0.0
    for _ in range(6):  # At rest, masked-out weights would take all of the norm.
        flips += model.train_on_batch(x, x[:, :4], return_dict=True)["mask_flip_ratio"]
        norms = np.linalg.norm(weight.effective_value(), axis=0)
        np.testing.assert_allclose(norms, 1.0, rtol=1e-5)
    assert flips > 0.0
    stripped = keras_es.strip_masks(model).layers[0]
    assert isinstance(stripped.kernel.constraint, keras.constraints.UnitNorm)


@every_layer
def test_the_config_has_the_users_regularizer(cls):
    layer = built(cls, **regularizers(cls))
    again = cls.from_config(layer.get_config())
    for name in regularizers(cls):
        assert layer.get_config()[name]["class_name"] == "L2"
        assert again.get_config()[name] == layer.get_config()[name]
