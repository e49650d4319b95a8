"""`strip_masks(model, compact=True)`: smaller, and equal in every output."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_es
from keras_es.conversion.compact.analysis import analyse
from keras_es.patterns import Block, Channel
from tests import architectures

DEAD = [1, 2, 5]


def kill(layer, dead=DEAD, bias=None, name="kernel"):
    """Make outputs of a layer constant: no weights, and a bias if there is one."""
    kernel = getattr(layer, name).numpy()
    kernel[..., dead] = 0.0
    getattr(layer, name).assign(kernel)
    if bias is not None:
        values = layer.bias.numpy()
        values[dead] = bias
        layer.bias.assign(values)


def fill(model, seed=3):
    """Draw all weights anew, variances above zero."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" in variable.dtype:
            values = rng.normal(size=variable.shape) * 0.5
            if "variance" in variable.name:
                values = 0.5 + np.abs(values)
            variable.assign(values)
    return model


def inputs(model, batch=3):
    rng = np.random.default_rng(5)
    found = []
    for tensor in model.inputs:
        shape = (batch, *(size or 4 for size in tensor.shape[1:]))
        if "int" in tensor.dtype:
            found.append(rng.integers(0, 5, shape))
        else:
            found.append(rng.normal(size=shape).astype("float32"))
    return found if len(found) > 1 else found[0]


def compacted(model, atol=1e-5):
    """Compact a model; its outputs have to be those of the model."""
    compact = keras_es.strip_masks(model, compact=True)
    x = inputs(model)
    for old, new in zip(
        keras.tree.flatten(model(x)), keras.tree.flatten(compact(x)), strict=True
    ):
        np.testing.assert_allclose(new, old, atol=atol, rtol=1e-5)
    assert type(compact) is type(model)
    assert names(compact) == names(model)
    return compact


def names(model):
    """Return the names of layers; Keras names a copied input after its tensor."""
    inputs = keras.layers.InputLayer
    return [layer.name for layer in model.layers if not isinstance(layer, inputs)]


def reasons(model):
    return {one.layer: one.reason for one in analyse(model)[1]}


def sequential(shape, *parts, bias=0.7, dead=DEAD, seed=3):
    """Return a model in which outputs of the first layer are dead."""
    model = fill(keras.Sequential([keras.Input(shape), *parts]), seed)
    kill(model.layers[0], dead, bias)
    return model


CHAINS = {
    "dense": ((6,), lambda: [layers.Dense(8, "gelu"), layers.Dense(3)]),
    "activations": (
        (6,),
        lambda: [
            layers.Dense(8),
            layers.LeakyReLU(),
            layers.Activation("tanh"),
            layers.PReLU(),
            layers.Dropout(0.5),
            layers.Rescaling(2.0, 0.5),
            layers.Dense(3, "softmax"),
        ],
    ),
    "sequence": (
        (5, 6),
        lambda: [
            layers.Dense(8, "sigmoid"),
            layers.Conv1D(4, 2, use_bias=False),
            layers.GlobalMaxPooling1D(),
            layers.RepeatVector(2),
            layers.Flatten(),
            layers.Dense(2),
        ],
    ),
    "images": (
        (7, 7, 3),
        lambda: [
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(8, 1, padding="same", activation="silu"),
            layers.SpatialDropout2D(0.5),
            layers.UpSampling2D(),
            layers.DepthwiseConv2D(2, depth_multiplier=2, activation="elu"),
            layers.SeparableConv2D(4, 2, depth_multiplier=2),
            layers.AveragePooling2D(2, padding="same"),
            layers.Flatten(),
            layers.Dense(2),
        ],
    ),
    "volumes": (
        (4, 4, 4, 2),
        lambda: [
            layers.Conv3D(8, 2, activation="relu"),
            layers.Conv3D(4, 2),
            layers.GlobalAveragePooling3D(),
            layers.Dense(2),
        ],
    ),
    "reshape": (
        (4, 4, 3),
        lambda: [
            layers.Conv2D(8, 1, activation="relu"),
            layers.Reshape((4, 32)),
            layers.Dense(4),
            layers.Permute((1, 2)),
            layers.Dense(2),
        ],
    ),
    "einsum": (
        (5, 6),
        lambda: [
            layers.EinsumDense("abc,cd->abd", (None, 8), activation="tanh"),
            layers.EinsumDense("abc,cd->abd", (None, 3)),
        ],
    ),
}
"""Layers of which outputs 1, 2 and 5 are a constant that is not 0, and may go."""


@pytest.mark.parametrize("name", CHAINS)
def test_constants_are_folded_along_chains(name):
    shape, parts = CHAINS[name]
    bias = None if name == "einsum" else 0.7
    model = sequential(shape, *parts(), bias=bias)
    compact = compacted(model)
    assert compact.layers[0].kernel.shape[-1] == 5
    # What reads the constants has no rows for them; depthwise filters are gone too.
    reader = compact.layers[-1].kernel.shape[0] / model.layers[-1].kernel.shape[0]
    first_reader = next(
        (new, old)
        for new, old in zip(compact.layers[1:], model.layers[1:])
        if hasattr(old, "kernel")
    )
    assert first_reader[0].kernel.shape[-2] / first_reader[1].kernel.shape[-2] == 5 / 8
    assert reader <= 1 and compact.count_params() < model.count_params()
    assert reasons(model) == {}


def test_a_bias_is_made_where_a_constant_needs_one():
    model = sequential(
        (6,), layers.Dense(8, "relu"), layers.Dense(3, use_bias=False), bias=0.7
    )
    assert compacted(model).layers[1].use_bias
    kill(model.layers[0], bias=-0.7)  # which the activation makes 0
    assert not compacted(model).layers[1].use_bias


def test_units_that_nobody_reads_are_dead_through_all_layers():
    model = sequential((6,), *(layers.Dense(n, "tanh") for n in (8, 8, 2)), dead=[])
    kernel = model.layers[1].kernel.numpy()
    kernel[3] = 0.0  # unit 3 is read by nobody
    kernel[[4], 1:] = 0.0  # unit 4 by unit 0 alone,
    model.layers[1].kernel.assign(kernel)
    kernel = model.layers[2].kernel.numpy()
    kernel[0] = 0.0  # which nobody reads
    model.layers[2].kernel.assign(kernel)
    compact = compacted(model)
    assert [layer.units for layer in compact.layers] == [6, 7, 2]


def test_beside_padding_constants_are_merged_and_the_reason_is_said():
    parts = [layers.Conv2D(8, 1), layers.Conv2D(4, 3, padding="same"), layers.Flatten()]
    model = sequential((5, 5, 3), *parts, bias=0.7, dead=[1])
    assert compacted(model).layers[0].filters == 8
    assert "that stay: 1, before it" in reasons(model)["conv2d_1"]
    kill(model.layers[0], [1, 2, 5], np.array([0.7, -0.3, 0.1]))
    compact = compacted(model)  # constants differ by a factor: one of them carries all
    assert compact.layers[0].filters == 6
    kill(model.layers[0], [1, 2, 5], 0.0)
    assert compacted(model).layers[0].filters == 5 and reasons(model) == {}


@pytest.mark.parametrize(
    "part",
    [
        lambda: layers.DepthwiseConv2D(3, padding="same"),
        lambda: layers.SeparableConv2D(4, 3, padding="same"),
        lambda: layers.ZeroPadding2D(),
    ],
)
def test_what_pads_keeps_constants_but_0(part):
    rest = [part(), layers.GlobalMaxPooling2D(), layers.Dense(2)]
    model = sequential((5, 5, 3), layers.Conv2D(8, 1), *rest, bias=0.7)
    assert compacted(model).layers[0].filters == 8
    assert list(reasons(model)) == [model.layers[1].name]
    kill(model.layers[0], bias=0.0)
    assert compacted(model).layers[0].filters == 5


def test_transposed_convolutions():
    model = sequential(
        (4, 4, 3),
        layers.Conv2DTranspose(8, 3, strides=2),
        layers.Conv2DTranspose(6, 2, strides=2, padding="same"),
        layers.Conv2D(2, 1),
        dead=[],
    )
    bias = model.layers[0].bias.numpy()
    bias[DEAD] = 0.7
    model.layers[0].bias.assign(bias)
    kernel = model.layers[0].kernel.numpy()
    kernel[..., [1, 2, 5], :] = 0.0
    model.layers[0].kernel.assign(kernel)
    assert compacted(model).layers[0].filters == 6


def residual():
    x = keras.Input((6, 6, 3))
    stem = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = layers.BatchNormalization()(stem)
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="inner")(y)
    y = layers.Conv2D(8, 3, padding="same", name="branch")(y)
    y = layers.Multiply()([layers.Add()([stem, y]), keras.ops.sigmoid(y)])
    y = layers.GlobalAveragePooling2D()(y + 1.0)
    return fill(keras.Model(x, layers.Dense(2, name="head")(y)))


def test_a_sum_keeps_what_any_branch_needs():
    model = residual()
    kill(model.get_layer("inner"), [0, 3], 0.0)
    kill(model.get_layer("stem"), [1, 2], 0.0)
    kill(model.get_layer("branch"), [4], 0.0)
    compact = compacted(model)
    assert compact.get_layer("inner").filters == 4
    assert compact.get_layer("stem").filters == 8
    kill(model.get_layer("branch"), [2], 0.0)  # now a constant on both sides
    compact = compacted(model)
    assert compact.get_layer("stem").filters == 7
    assert compact.get_layer("branch").filters == 7
    assert compact.get_layer("head").kernel.shape == (7, 2)


def test_concatenation_and_a_model_in_the_model():
    a, b = keras.Input((4,)), keras.Input((3,))
    left, right = layers.Dense(8, "relu", name="a"), layers.Dense(4, name="b")
    z = keras.Input((8,))
    hidden = layers.Dense(6, "relu", name="hidden")(z)
    inner = keras.Model(z, layers.Concatenate()([hidden, z]), name="inner")
    y = layers.Concatenate()([inner(left(a)), right(b)])
    model = fill(keras.Model([a, b], [layers.Dense(2)(y), layers.Dense(3)(y)]))
    kill(left, bias=0.7)
    kill(right, [0], 0.7)
    kill(inner.get_layer("hidden"), [4], 0.7)
    compact = compacted(model)
    assert compact.get_layer("a").units == 5 and compact.get_layer("b").units == 3
    assert compact.get_layer("inner").get_layer("hidden").kernel.shape == (5, 5)
    assert compact.layers[-1].kernel.shape[0] == 5 + 5 + 3
    last = keras.Sequential([layers.Dense(4), layers.Dense(3)])
    nested = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), last])
    kill(fill(nested).layers[0], bias=0.7)
    assert compacted(nested).layers[1].layers[0].kernel.shape == (5, 4)


@keras.saving.register_keras_serializable(package="test_compact")
def plus_one(x):
    return x + 1.0


def test_what_is_not_followed_is_left_alone_with_the_reason():
    x = keras.Input((6, 8))
    dense = layers.Dense(8, "relu", name="dense")
    y = dense(x)
    y = layers.Lambda(plus_one, name="own")(y)
    shared = layers.Dense(8, "relu", name="shared")
    y = shared(shared(y))
    y = layers.GRU(8, return_sequences=True, name="gru")(y)
    y = layers.LayerNormalization(name="norm")(y)
    y = layers.Dense(8, plus_one, name="odd")(y)
    y = layers.Dense(8, "relu", name="last")(y)
    y = layers.Conv1D(8, 1, groups=2, name="groups")(y)
    model = fill(keras.Model(x, y))
    for name in ("dense", "shared", "odd", "last"):
        kill(model.get_layer(name), bias=0.7)
    assert keras_es.strip_masks(model, compact=True).count_params() == (
        model.count_params()
    )
    found = reasons(model)
    assert list(found) == ["own", "shared", "gru", "norm", "groups", "odd"]
    assert found["odd"].startswith("constant channels that stay: 3, of its own")
    assert "more than once" in found["shared"] and "recurrent" in found["gru"]
    assert "over channels together" in found["norm"]


@keras.saving.register_keras_serializable(package="test_compact")
class Named(keras.Model):
    """A functional model whose class makes itself."""

    def __init__(self, units=4, **kwargs):
        x = keras.Input((3,))
        super().__init__(x, layers.Dense(units)(x), **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units}


def test_models_without_a_graph_are_refused():
    with pytest.raises(ValueError, match="in its own code.*class Subclassed"):
        keras_es.strip_masks(architectures.subclassed(), compact=True)
    with pytest.raises(ValueError, match="keras.Model.model.inputs.*class Named"):
        analyse(Named())
    x = keras.Input((3,))
    inside = keras.Model(x, layers.Dense(2)(Named(name="own")(x)))
    assert "made by that class" in reasons(inside)["own"]


def test_a_layer_whose_units_are_all_dead_keeps_one():
    model = sequential((6,), *(layers.Dense(n, "tanh") for n in (8, 4, 2)), dead=[])
    kill(model.layers[1], range(4), 0.5)
    compact = compacted(model)
    assert [layer.units for layer in compact.layers] == [1, 1, 2]


def encoder(use_bias=True, units=16):
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(5, 8)(tokens)
    y = layers.MultiHeadAttention(4, 3, use_bias=use_bias, name="attention")(
        x, x, use_causal_mask=True
    )
    x = layers.LayerNormalization()(x + y)
    y = layers.Dense(units, "gelu", name="wide")(x)
    x = layers.LayerNormalization()(x + layers.Dense(8, name="narrow")(y))
    return fill(keras.Model(tokens, layers.Dense(3)(x)))


@pytest.mark.parametrize("use_bias", [True, False])
def test_heads_and_units_of_an_encoder(use_bias):
    model = encoder(use_bias)
    attention = model.get_layer("attention")
    kernel = attention.value_dense.kernel.numpy()
    kernel[:, 1] = 0.0
    attention.value_dense.kernel.assign(kernel)
    kernel = attention.output_dense.kernel.numpy()
    kernel[2] = 0.0
    attention.output_dense.kernel.assign(kernel)
    kill(model.get_layer("wide"), bias=0.7)
    compact = compacted(model)
    assert compact.get_layer("attention").num_heads == 2
    assert compact.get_layer("wide").units == 13
    attention.value_dense.kernel.assign(0.0 * attention.value_dense.kernel)
    assert compacted(model).get_layer("attention").num_heads == 1


def test_attention_between_layers_loses_inputs_and_outputs():
    x = keras.Input((5, 6))
    y = layers.Dense(8, "relu", name="before")(x)
    y = layers.MultiHeadAttention(2, 3, output_shape=8, name="attention")(y, x, key=y)
    model = fill(keras.Model(x, layers.Dense(2, name="after")(y)))
    kill(model.get_layer("before"), bias=-0.7)
    part = model.get_layer("attention").output_dense
    kill(part, [0, 7], 0.3)
    compact = compacted(model)
    assert compact.get_layer("before").units == 5
    assert compact.get_layer("attention").key_dense.kernel.shape == (5, 2, 3)
    assert compact.get_layer("after").kernel.shape == (6, 2)


def test_embeddings_lose_columns():
    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), layers.Embedding(5, 8), layers.Dense(2)]
    )
    fill(model)
    kill(model.layers[0], [3], name="embeddings")
    assert compacted(model).layers[0].output_dim == 7 and reasons(model) == {}


def test_masked_models_and_files(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(4, name="head"),
        ],
        name="small",
    )
    sparse = keras_es.sparsify(model, 0.5, pattern=Channel(), exclude=["head"])
    compact = keras_es.strip_masks(sparse, compact=True)
    x = inputs(model)
    np.testing.assert_allclose(compact(x), sparse(x), atol=1e-5)
    assert type(compact) is keras.Sequential and compact.name == "small"
    assert [layer.name for layer in compact.layers] == [v.name for v in model.layers]
    assert compact.layers[3].kernel.shape == (3, 3, 4, 4)
    compact.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), compact(x))
    compact.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    compact.train_on_batch(x, np.zeros(3))
    assert keras_es.strip_masks(compact, compact=True).count_params() == (
        compact.count_params()
    )
    # The masked model is as it was.
    assert sparse.layers[3].kernel.shape == (3, 3, 8, 8)


def test_heads_by_blocks_of_the_value_kernel():
    model = encoder()
    sparse = keras_es.sparsify(
        model,
        pattern={".*value": Block(8, 3)},
        allocation={".*attention/value": 0.5},
    )
    compact = keras_es.strip_masks(sparse, compact=True)
    assert compact.get_layer("attention").num_heads == 2
    np.testing.assert_allclose(compact(inputs(model)), sparse(inputs(model)), atol=1e-5)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = sequential(
        (6, 6, 3),
        layers.Conv2D(8, 3),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Conv2D(4, 3),
        layers.Flatten(),
        layers.Dense(2, dtype="float32"),
        bias=0.7,
    )
    compact = compacted(model, atol=2e-2)
    assert compact.layers[0].filters == 5
    assert compact.layers[0].dtype_policy.name == "mixed_float16"


def test_the_report_is_a_table():
    model = sequential((6,), layers.Dense(8, "relu"), layers.Softmax(), layers.Dense(3))
    report = keras_es.compaction_report(model, latency=[2], rounds=2)
    assert report.before["multiplications"] == 6 * 8 + 8 * 3
    assert report.ratios["parameters"] == 1.0 and report.before["latency_2"] > 0
    lines = str(report).splitlines()
    assert lines[0].split() == ["before", "after", "after/before"]
    assert [line.split()[0] for line in lines[2:6]] == [
        "parameters", "multiplications", "file", "latency,"
    ]  # fmt: skip
    assert lines[-1] == (
        "left alone: softmax (Softmax): it compares channels with each other"
    )
    assert set(report.as_dict()) == {"before", "after", "ratios", "left_alone"}


def test_refusals():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"`compact` must be.*Received: compact=1"):
        keras_es.strip_masks(model, compact=1)
    with pytest.raises(ValueError, match=r"`latency` must be.*Received: latency=0"):
        keras_es.compaction_report(model, latency=[0])
    with pytest.raises(ValueError, match=r"`rounds` must be.*Received: rounds=0"):
        keras_es.compaction_report(model, rounds=0)
    with pytest.raises(ValueError, match="must be a keras.Model"):
        keras_es.strip_masks(model.layers[0], compact=True)
