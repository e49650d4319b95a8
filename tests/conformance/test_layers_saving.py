"""Config and .keras round trips restore layer, weights, scores and masks."""

import json

import keras
import numpy as np
import pytest

import keras_es
from keras_es.layers.masked_weight import refresh_mask
from tests.conformance.masked_layers import (
    SHAPES,
    built,
    every_layer,
    every_layer_and_pattern,
    inputs,
    make_plain,
    one_layer_model,
)


def moved(cls, pattern=None, **kwargs):
    """Return a built layer whose scores are no longer the first ones."""
    layer = built(cls, pattern, **kwargs)
    for masked in keras_es.masked_weights(layer):
        rng = np.random.default_rng(9)
        masked.mask_scores.assign(rng.normal(size=masked.mask_scores.shape))
        refresh_mask(masked)
    return layer


def assert_same(new, old):
    assert [v.name for v in new.weights] == [v.name for v in old.weights]
    for a, b in zip(new.weights, old.weights):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@every_layer_and_pattern
def test_config_round_trip(cls, pattern):
    layer = built(cls, pattern)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is cls
    assert again.get_config() == layer.get_config()
    again(inputs(cls))
    for a, b in zip(keras_es.masked_weights(again), keras_es.masked_weights(layer)):
        assert (a.pattern, a.sparsity) == (b.pattern, b.sparsity)
        np.testing.assert_array_equal(a.mask_scores.numpy(), b.mask_scores.numpy())
        np.testing.assert_array_equal(a.kernel_mask.numpy(), b.kernel_mask.numpy())


@every_layer_and_pattern
def test_keras_file_round_trip(cls, pattern, tmp_path):
    layer = moved(cls, pattern)
    model, x = one_layer_model(layer), inputs(cls)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.layers[1]) is cls
    assert_same(again, model)
    np.testing.assert_array_equal(again(x), model(x))


@every_layer
def test_weights_file_round_trip(cls, tmp_path):
    layer = moved(cls)
    one_layer_model(layer).save_weights(tmp_path / "model.weights.h5")
    other = one_layer_model(built(cls, mask_seed=8))
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(other, one_layer_model(layer))


@every_layer
@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Some Kerases guess.
def test_a_file_of_the_plain_layer_is_refused(cls, tmp_path):
    plain = one_layer_model_of_plain(cls)
    plain.save_weights(tmp_path / "model.weights.h5")
    model = one_layer_model(built(cls))
    with pytest.raises(ValueError, match="keras_es.sparsify"):
        model.load_weights(tmp_path / "model.weights.h5")


def one_layer_model_of_plain(cls):
    x = keras.Input(SHAPES[cls][1][1:])
    return keras.Model(x, make_plain(cls, name="masked")(x))
