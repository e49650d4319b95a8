"""Compaction knows how layers are called, held, made and typed."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_es
from keras_es.patterns import Channel
from tests.conversion.test_compact import compacted, fill, inputs, kill, reasons


def held_by_time_distributed(x, dense):
    return layers.TimeDistributed(dense)(x)


def held_by_a_layer_in_a_layer(x, dense):
    return layers.TimeDistributed(layers.TimeDistributed(dense))(x[:, None])


def held_with_its_model(x, dense):
    inner = keras.Sequential([keras.Input((5,)), dense])
    return layers.TimeDistributed(inner)(x)


@pytest.mark.parametrize(
    "hold",
    [held_by_time_distributed, held_by_a_layer_in_a_layer, held_with_its_model],
)
def test_a_layer_that_another_one_holds_as_well_stays(hold):
    x = keras.Input((4, 6))
    before = layers.Dense(5, "sigmoid", name="before")(x)
    dense = layers.Dense(6, "elu", name="both")
    outputs = [layers.Dense(2)(dense(before)), hold(before, dense)]
    model = fill(keras.Model(x, outputs))
    kill(dense, bias=0.7)
    kill(model.get_layer("before"), [1, 2], 0.7)
    compact = compacted(model)
    assert compact.get_layer("both").units == 6
    assert "more than once" in reasons(model)["both"]


def test_what_is_called_with_training_true_is_not_followed():
    x = keras.Input((6,))
    y = layers.Dense(8, "elu", name="first")(x)
    y = layers.BatchNormalization(name="norm")(y, training=True)
    y = layers.Dense(8, "elu", name="second")(y)
    inner = keras.Sequential(
        [keras.Input((8,)), layers.BatchNormalization(), layers.Dense(4)], name="inner"
    )
    y = inner(y, training=True)
    y = layers.Dense(8, "elu", name="third")(y)
    y = layers.Dropout(0.5)(y, training=False)
    model = fill(keras.Model(x, layers.Dense(2)(y)))
    for name in ("first", "second", "third"):
        kill(model.get_layer(name), bias=0.7)
    compact = compacted(model)
    assert [compact.get_layer(n).units for n in ("first", "second", "third")] == [
        8, 8, 5
    ]  # fmt: skip
    assert {"norm", "inner"} <= set(reasons(model))
    assert "training=True" in reasons(model)["norm"]


def test_layers_with_several_results_are_left_alone():
    x = keras.Input((5, 6))
    y = layers.Dense(8, "elu", name="before")(x)
    y, scores = layers.MultiHeadAttention(2, 3, name="attention")(
        y, y, return_attention_scores=True
    )
    y, z = layers.Identity(name="pair")([layers.Dense(4)(y), layers.Dense(3)(y)])
    model = fill(
        keras.Model(x, [layers.Dense(2)(layers.Concatenate()([y, z])), scores])
    )
    kill(model.get_layer("before"), bias=0.7)
    assert compacted(model).get_layer("before").units == 8
    assert {"attention", "pair"} <= set(reasons(model))


@pytest.mark.parametrize("bias, heads", [(0.0, 2), (0.7, 4)])
def test_heads_beside_masks_and_dropout_go_if_they_are_0(bias, heads):
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(6, 8, mask_zero=True)(tokens)
    attention = layers.MultiHeadAttention(4, 2, dropout=0.1, name="attention")
    model = fill(keras.Model(tokens, layers.Dense(2)(attention(x, x))))
    part = attention.value_dense
    for variable, value in ((part.kernel, 0.0), (part.bias, bias)):
        values = variable.numpy()
        values[..., [0, 2], :] = value
        variable.assign(values)
    compact = keras_es.strip_masks(model, compact=True)
    assert compact.get_layer("attention").num_heads == heads
    rows = np.array([[1, 2, 0, 0, 3], [0, 0, 0, 0, 0]])  # padded, and nothing else
    np.testing.assert_allclose(compact(rows), model(rows), atol=1e-5)


def test_float64_keeps_its_digits():
    keras.config.set_dtype_policy("float64")
    parts = [layers.Dense(8, "sigmoid"), layers.BatchNormalization()]
    parts += [layers.Activation("tanh"), layers.ReLU(), layers.Dense(3)]
    model = keras.Sequential([keras.Input((6,), dtype="float64"), *parts])
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(0.1 + rng.random(variable.shape))
    kill(model.layers[0], bias=0.7)
    compact = keras_es.strip_masks(model, compact=True)
    assert compact.layers[0].units == 5
    x = inputs(model).astype("float64")
    np.testing.assert_allclose(compact(x), model(x), rtol=1e-13)


@keras.saving.register_keras_serializable(package="test_compact_calls")
class Table(keras.initializers.Initializer):
    """One table, whatever shape is asked for."""

    def __call__(self, shape, dtype=None):
        return keras.ops.ones((6, 8), dtype)

    def get_config(self):
        return {}


def table(*shape):
    return keras.initializers.Constant(np.ones(shape).tolist())


def test_initializers_that_are_tables_of_the_old_size():
    words = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(6, 8, embeddings_initializer=table(6, 8)),
            layers.Dense(6, "elu", bias_initializer=table(6)),
            layers.Dense(8, "elu", kernel_initializer=Table()),
            layers.Dense(2, kernel_initializer=table(8, 2), bias_initializer=table(2)),
        ]
    )
    fill(words)
    kill(words.layers[0], [3], name="embeddings")
    kill(words.layers[1], [1, 2], 0.7)
    kill(words.layers[2], bias=0.7)
    compact = compacted(words)
    found = [layer.get_config() for layer in compact.layers]
    assert found[0]["embeddings_initializer"]["class_name"] == "Zeros"
    assert found[1]["kernel_initializer"]["class_name"] == "GlorotUniform"
    assert found[3]["kernel_initializer"]["class_name"] == "Zeros"
    assert found[3]["bias_initializer"]["class_name"] == "Constant"  # it still fits


def test_initializers_of_depthwise_kernels_that_are_tables():
    depthwise = {"depthwise_initializer": table(1, 1, 8, 1)}
    pointwise = {"pointwise_initializer": table(1, 1, 8, 8)}
    images = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Conv2D(8, 1),
            layers.DepthwiseConv2D(1, **depthwise),
            layers.SeparableConv2D(8, 1, **depthwise, **pointwise),
            layers.BatchNormalization(gamma_initializer=table(8)),
            layers.PReLU(alpha_initializer=table(4, 4, 8)),
            layers.Conv2D(2, 1),
        ]
    )
    kill(fill(images).layers[0], bias=0.7)
    kill(images.layers[2], bias=0.7, name="pointwise_kernel")
    assert compacted(images).layers[4].alpha.shape[-1] < 8


def test_a_masked_model_with_pretrained_words():
    words = keras.initializers.Constant(np.random.default_rng(0).normal(size=(6, 8)))
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(6, 8, embeddings_initializer=words),
            layers.Dense(4, kernel_initializer=table(8, 4)),
            layers.Dense(2, name="head"),
        ]
    )
    sparse = keras_es.sparsify(model, 0.5, pattern=Channel(), exclude=["head"])
    compact = keras_es.strip_masks(sparse, compact=True)
    assert compact.layers[1].units == 2
    x = np.array([[1, 2, 3]])
    np.testing.assert_allclose(compact(x), sparse(x), atol=1e-5)
