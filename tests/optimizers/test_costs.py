"""What active weights cost, by rules, and how often an example multiplies by them."""

import keras
import pytest

import keras_es
from keras_es.optimizers import GuidedES


def test_costs_go_by_whole_paths_in_the_model():
    """Of layers of one name, in functional models within, recurrent, frozen, dense."""
    image, inputs = keras.Input((4, 4, 1)), keras.Input((4, 4, 1))
    same = keras.layers.Conv2D(2, 1, name="same")
    y = keras.Model(image, same(image), name="inner")(inputs)
    y = keras.layers.GRU(2, name="gru")(keras.layers.Reshape((8, 4))(y))
    y = keras.layers.Dense(2, name="out")(keras.layers.Dense(4, name="same")(y))
    model = keras_es.sparsify(keras.Model(inputs, y), 0.5, exclude=["out"])
    costs = keras_es.multiplications_per_weight(model)
    assert costs == {"inner/same": 16.0, "gru": 8.0, "same": 1.0, "out": 1.0}
    for rules, expected in (
        (costs, [16.0, 8.0, 8.0, 1.0]),
        ({"gru/recurrent_kernel": 3.0, "lstm_?.*/same": 2.0, "inner/.*": 5.0}, None),
        ({"gru/recurrent_kernel": 3.0, "inner/.*": 5.0}, [5.0, 1.0, 3.0, 1.0]),
        ({"gru_cell": 7.0, "kernel": 0.5}, [0.5, 0.5, 7.0, 0.5]),
    ):
        optimizer = GuidedES("adam", costs=rules)
        model.compile(optimizer, "mse", jit_compile=False)
        if expected is None:
            with pytest.raises(ValueError, match="'inner/same/kernel', 'gru/kernel'"):
                optimizer.build(model.trainable_variables)
            continue
        for _ in range(2):
            weights = keras_es.masked_weights(model)
            assert [optimizer.cost_of(m) for m in weights] == expected
            optimizer.build(model.trainable_variables)


def test_multiplications_per_weight():
    """Of each layer over its weights, masked or not; a shared one counts twice."""
    inputs = keras.Input((6, 6, 2))
    shared = keras.layers.Conv2D(2, 3, padding="same", name="shared")
    y = shared(shared(inputs))
    y = keras.layers.DepthwiseConv2D(3, name="depthwise")(y)
    y = keras.layers.Reshape((16, 2))(y)
    y = keras.layers.GRU(3, name="gru")(y)
    inner = [keras.Input((3,)), keras.layers.Dense(4, name="out")]
    y = keras.Sequential(inner, name="inner")(y)
    model = keras.Model(inputs, y)
    expected = {"shared": 72.0, "depthwise": 16.0, "gru": 16.0, "inner/out": 1.0}
    assert keras_es.multiplications_per_weight(model) == expected
    sparse = keras_es.sparsify(model, 0.5)
    assert keras_es.multiplications_per_weight(sparse) == expected
    with pytest.raises(ValueError, match="must be a built functional.*Received"):
        keras_es.multiplications_per_weight(keras.Sequential())
