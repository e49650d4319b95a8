"""Pure evolution with `noise=Active()`: active weights are searched, and no others."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.noise import Active, Full, Layerwise, LowRank, Outputs
from keras_es.optimizers import PURE, SNES, OpenES
from tests.marks import slow
from tests.reference import pure

MEMBERS = 16
X = np.random.default_rng(0).normal(size=(24, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 24)


def plain(seed=1):
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((6,)), keras.layers.Dense(5, "tanh", name="hidden")]
    return keras.Sequential([*layers, keras.layers.Dense(3, "softmax", name="out")])


def sparse_model(optimizer, sparsity=0.6, exclude=(), jit_compile=False):
    model = keras_es.sparsify(plain(), sparsity, exclude=exclude, seed=3)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return model


def fit(model, epochs=1, **kwargs):
    return model.fit(
        X, Y, batch_size=24, epochs=epochs, shuffle=False, verbose=0, **kwargs
    )


RATES = {"mean_learning_rate": 0.7, "std_learning_rate": 0.2}


@pytest.mark.parametrize(("mirrored", "exclude"), [(True, ("out",)), slow(False, ())])
def test_equals_the_full_search_whose_other_coordinates_are_frozen(mirrored, exclude):
    kind = type("Search", (SNES,), {"mirrored": mirrored})
    sparse = sparse_model(
        kind(None, MEMBERS, sigma=0.3, noise=Active(), seed=5, **RATES), exclude=exclude
    )
    masks = {m.attribute + m.layer.name: m for m in keras_es.masked_weights(sparse)}
    full = keras_es.es_model(keras_es.strip_masks(sparse))
    full.compile(
        kind(None, MEMBERS, sigma=0.3, seed=5, **RATES),
        "sparse_categorical_crossentropy",
        jit_compile=False,
    )
    full.optimizer.build(full.trainable_variables)
    for variable, std in zip(full.optimizer.search.variables, full.optimizer._stds):
        layer, attribute = variable.path.split("/")[-2:]
        masked = masks.get(attribute + layer)
        if masked is not None:  # A std of 0 stays 0, and so does the mean.
            std.assign(std.value * tf.cast(masked.deployed_mask(), "float32"))
    fit(sparse, 4)
    fit(full, 4)
    stripped = keras_es.strip_masks(sparse)
    for ours, theirs in zip(stripped.weights, full.weights):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    # The distributions are the same too, and ours holds nothing else.
    for std, wide in zip(sparse.optimizer._stds, full.optimizer._stds):
        wide = np.ravel(wide)[np.ravel(wide) > 0]
        np.testing.assert_allclose(np.ravel(std), wide, rtol=2e-5)


def test_weights_end_as_their_moving_average():
    averaged = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    model = sparse_model(OpenES(None, 4, noise=Active(), mean_optimizer=averaged))
    model.optimizer.build(model.trainable_variables)
    for losses in ([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 3.0, 4.0]):
        model.optimizer.tell(losses)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    space = model.optimizer.search.space
    averages = [v for v in averaged.variables if v.name.endswith("_average")]
    for found, searched, average in zip(
        space.weights, space.variables, averages, strict=True
    ):
        np.testing.assert_array_equal(searched, average)
        if searched is not found:
            found = space.vectors[id(found)].gathered()
        np.testing.assert_array_equal(found, average)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PURE])
def test_no_other_weight_moves(name):
    kwargs = {} if name == "alopex" else {"sigma": 0.1}
    model = sparse_model(pure.make(name, MEMBERS, seed=3, noise=Active(), **kwargs))
    before = [np.asarray(m.kernel).copy() for m in keras_es.masked_weights(model)]
    masks = [np.asarray(m.deployed_mask()) for m in keras_es.masked_weights(model)]
    fit(model, 2)
    counts = [int(mask.sum()) for mask in masks]
    sizes = [int(np.prod(v.shape)) for v in model.optimizer.search.variables]
    assert sizes == [counts[0], 5, counts[1], 3]
    for m, old, mask in zip(keras_es.masked_weights(model), before, masks):
        new = np.asarray(m.kernel)
        np.testing.assert_array_equal(m.deployed_mask(), mask)
        np.testing.assert_array_equal(new[~mask], old[~mask])
        # An elite may stay, and two steps of one size may cancel each other.
        may_stay = name in ("genetic_algorithm", "alopex")
        assert may_stay or np.all(new[mask] != old[mask])


@pytest.mark.slow
def test_goes_on_from_a_file_to_the_bit(tmp_path):
    optimizer = SNES(None, MEMBERS, sigma=0.2, noise=Active(), seed=2)
    model = sparse_model(optimizer)
    fit(model, 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.noise == Active()
    fit(model, 2)
    fit(loaded, 2)
    for a, b in zip(model.variables, loaded.variables):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_weights_and_masks_that_others_set_are_followed():
    optimizer = OpenES(
        None, MEMBERS, sigma=0.1, noise=Active(), seed=2,
        mean_optimizer=keras.optimizers.SGD(0.1),
    )  # fmt: skip
    model = sparse_model(optimizer)
    fit(model)
    fresh = keras_es.sparsify(plain(7), 0.6, seed=8)
    model.set_weights(fresh.get_weights())
    masks = [np.asarray(m.deployed_mask()) for m in keras_es.masked_weights(fresh)]
    before = [np.asarray(m.kernel).copy() for m in keras_es.masked_weights(fresh)]
    fit(model)
    for m, mask, old in zip(keras_es.masked_weights(model), masks, before):
        np.testing.assert_array_equal(m.deployed_mask(), mask)
        np.testing.assert_array_equal(np.asarray(m.kernel) != old, mask)


@pytest.mark.slow
def test_without_masks_it_is_the_search_of_all_weights():
    models = []
    for noise in (None, Active()):
        model = keras_es.es_model(plain())
        optimizer = SNES(None, MEMBERS, sigma=0.2, noise=noise)
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        fit(model, 2)
        models.append(model)
    for a, b in zip(*(m.weights for m in models)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "noise", [LowRank(1), Full(2), Layerwise(), Outputs(0.1)], ids=repr
)
def test_noise_that_is_not_of_single_weights_is_refused(noise):
    with pytest.raises(
        ValueError, match=r"give Full\(\) or Orthogonal.*Received: noise"
    ):
        Active(noise)
    if isinstance(noise, LowRank | Full):
        return
    with pytest.raises(ValueError, match="drawn for each layer by itself"):
        type(noise)(*([0.1] if isinstance(noise, Outputs) else []), noise=Active())


def test_beside_an_optimizer_of_the_weights_it_is_refused():
    for method in (SNES, keras_es.optimizers.GuidedNES):
        with pytest.raises(ValueError, match=r"noise.*Received: noise=Active"):
            method("adam", noise=Active())
