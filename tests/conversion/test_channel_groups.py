"""Weights that share one mask: what a graph ties together, and that it then shrinks."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es.layers import MaskedDense
from keras_es.optimizers import OpenES
from keras_es.patterns import Block, Channel


def block(x, filters, name, project):
    y = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_in")(x)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
    y = keras.layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depth")(y)
    y = keras.layers.Conv2D(filters, 1, name=f"{name}_out")(y)
    y = keras.layers.BatchNormalization()(y)
    if project:
        x = keras.layers.Conv2D(filters, 1, name=f"{name}_skip")(x)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))


@pytest.fixture
def residual():
    inputs = keras.Input((6, 6, 3))
    x = block(inputs, 8, "first", project=True)
    x = block(x, 8, "second", project=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def groups_of(model):
    """Return lists of the layers that share a group, and those alone."""
    found = {}
    for name, pattern in keras_es.channel_groups(model).items():
        found.setdefault(pattern.group or name, []).append(name.split("/")[-2])
    return sorted(sorted(names) for names in found.values())


EXPECTED = [
    ["first_depth", "first_in"],
    ["first_out", "first_skip", "second_out"],
    ["head"],
    ["second_depth", "second_in"],
]


def test_what_is_added_up_is_a_group(residual):
    assert groups_of(residual) == EXPECTED
    sparse = keras_es.sparsify(residual, 0.5)
    assert keras_es.channel_groups(sparse) == keras_es.channel_groups(residual)


def test_models_within_models_and_shared_layers():
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, keras.layers.Dense(4, name="inside")(inner_input))
    inputs, other = keras.Input((4,)), keras.layers.Dense(4, name="twice")
    outputs = keras.layers.Add()([inner(inputs), other(other(inputs))])
    head = keras.layers.Dense(4, name="head")(outputs)
    assert groups_of(keras.Model(inputs, head)) == [["head"], ["inside", "twice"]]


def test_a_model_without_a_graph():
    class Own(keras_es.ESMixin, keras.Model):
        pass

    with pytest.raises(ValueError, match="graph of a Sequential.*Received: model"):
        keras_es.channel_groups(Own())


@pytest.mark.parametrize("initial_mask", ["random", "magnitude"])
def test_a_residual_network_shrinks(residual, initial_mask, tmp_path):
    pattern = keras_es.channel_groups(residual, exclude=["head"])
    make = {"pattern": pattern, "exclude": ["head"], "initial_mask": initial_mask}
    sparse = keras_es.sparsify(residual, 0.5, seed=3, **make)
    compact = keras_es.strip_masks(sparse, compact=True)
    assert compact.get_layer("second_out").filters == 4
    assert compact.get_layer("first_depth").kernel.shape[2] == 4
    x = np.random.default_rng(0).normal(size=(5, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(compact(x), sparse(x), atol=1e-5)

    sparse.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    patterns = [m.pattern for m in keras_es.masked_weights(sparse)]
    assert [m.pattern for m in keras_es.masked_weights(loaded)] == patterns
    sparser = keras_es.sparsify(sparse, 0.75, **make)
    masks = [
        (a.kernel_mask.numpy(), b.kernel_mask.numpy())
        for a, b in zip(*map(keras_es.masked_weights, (sparse, sparser)))
    ]
    assert initial_mask == "magnitude" or all((b <= a).all() for a, b in masks)
    assert (
        keras_es.strip_masks(sparser, compact=True).get_layer("second_in").filters == 2
    )


def of_a_group(*sparsities, pattern=None):
    layers = [
        MaskedDense(8, sparsity=s, pattern=pattern or Channel(group="g"))
        for s in sparsities
    ]
    return keras_es.ESSequential([keras.Input((8,)), *layers, keras.layers.Dense(2)])


def test_pure_evolution_and_layers_by_hand():
    model = of_a_group(0.5, 0.5)
    first, second = keras_es.masked_weights(model)
    begun = first.kernel_mask.numpy()
    np.testing.assert_array_equal(begun, second.kernel_mask.numpy())
    large = keras.optimizers.Adam(0.5)
    optimizer = OpenES(None, population_size=8, score_optimizer=large, seed=1)
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    model.fit(x, x[:, :2], batch_size=16, epochs=3, verbose=0)
    mask = first.kernel_mask.numpy()
    np.testing.assert_array_equal(mask, second.kernel_mask.numpy())
    assert (mask != begun).any()


def test_groups_that_cannot_have_one_mask():
    model = of_a_group(0.5, 0.25)
    with pytest.raises(
        ValueError, match="group 'g' share one mask.*Received: .*4 of 8"
    ):
        model.compile(OpenES("sgd"), "mse")
        model.fit(np.ones((2, 8)), np.ones((2, 2)), verbose=0)
    plain = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="a")])
    plain.add(keras.layers.Dense(4, name="b"))
    with pytest.raises(ValueError, match="Name another group"):
        keras_es.sparsify(plain, 0.5, pattern=Channel(group="g"))
    for name in ("", 3):
        with pytest.raises(ValueError, match="`group` of Channel.*Received"):
            Channel(group=name)
    assert Block(4, 2).group is None


@pytest.mark.parametrize("exclude", ["b", None, 3])
def test_what_is_excluded_is_a_list(exclude):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="b")])
    with pytest.raises(ValueError, match="`exclude` must be a list.*Received: exclude"):
        keras_es.channel_groups(model, exclude=exclude)
