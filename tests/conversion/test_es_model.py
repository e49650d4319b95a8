"""Sequential models with the class that trains masks: their inputs are as before."""

import keras
import numpy as np

import keras_es
from keras_es.layers import MaskedDense
from keras_es.optimizers import OpenES
from tests.training.common import compiled, data, sgd


def test_inputs_keep_their_names():
    inputs = keras.Input((6,), name="pixels")
    plain = keras.Sequential([inputs, keras.layers.Dense(3)])
    sparse = keras_es.sparsify(plain, 0.5)
    for model in (sparse, keras_es.es_model(plain), keras_es.strip_masks(sparse)):
        assert [i.name for i in model.inputs] == ["pixels"]


def test_a_model_that_the_first_batch_builds_is_one_for_any_number_of_examples(
    tmp_path,
):
    layers = [MaskedDense(4, sparsity=0.5, mask_seed=0), keras.layers.Dense(3)]
    model = keras_es.es_model(keras.Sequential(layers))
    # Members share the batch, and the last one is smaller.
    compiled(model, OpenES(sgd(), population_size=4))
    x, y = data(12)
    model.fit(x, y, batch_size=8, verbose=0)
    assert model.input_shape == (None, 6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
