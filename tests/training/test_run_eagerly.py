"""`run_eagerly` of pure evolution: each member is called from Python."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import noise
from keras_es.optimizers import Alopex, OpenES, Sampled
from tests.marks import slow_unless
from tests.training.common import compiled, data, mlp

STRATEGIES = {
    "full": lambda: OpenES(None, 4),
    "outputs": lambda: OpenES(None, 4, noise=noise.Outputs(0.1)),
    "layerwise": lambda: OpenES(None, 6, noise=noise.Layerwise()),
    "sampled": lambda: OpenES(None, 4, batch_mode=Sampled(4)),
    "given": lambda: Alopex(None),
}


class Looking(keras.layers.Layer):
    """Notes how often it is called with values and not with a graph's tensors."""

    looked = 0

    def call(self, x):
        self.looked += not tf.is_symbolic_tensor(x)
        return x


@pytest.mark.parametrize("name", slow_unless(["full", "outputs"], STRATEGIES))
def test_it_trains_as_the_compiled_step(name):
    found = []
    x, y = data(8)
    for eagerly in (False, True):
        keras.utils.set_random_seed(0)
        norm = keras.layers.BatchNormalization()
        dense = mlp(norm)
        head = dense.layers[-1].name
        model = keras_es.sparsify(dense, 0.5, seed=0, exclude=[head])
        compiled(model, STRATEGIES[name](), run_eagerly=eagerly, metrics=["accuracy"])
        logs = model.train_on_batch(x, y, return_dict=True)
        found.append([*logs.values(), *(w.numpy() for w in model.weights)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)


def test_members_are_called_with_values():
    model = keras_es.es_model(mlp(Looking()))
    compiled(model, OpenES(None, 4), run_eagerly=True)
    model.train_on_batch(*data(8))
    assert model.layers[1].looked >= 4


def test_a_layer_may_look_at_the_numbers_of_a_member():
    class Python(keras.layers.Layer):
        def call(self, x):
            if tf.is_symbolic_tensor(x) or isinstance(x, keras.KerasTensor):
                return x  # as Keras builds the model
            return x * float(x.numpy().max())

    model = keras_es.es_model(mlp(Python()))
    compiled(model, OpenES(None, 4, noise=noise.Outputs(0.1)), run_eagerly=True)
    logs = model.train_on_batch(*data(8), return_dict=True)
    assert np.isfinite(logs["loss"])
