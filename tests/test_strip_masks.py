"""`strip_masks`: the plain model, equal in every output, without a trace of masks."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_es
from keras_es.layers.tree import walk
from keras_es.patterns import Block
from tests import architectures
from tests.architectures import MASKED, fill, inputs

every_model = pytest.mark.parametrize("make", MASKED, ids=lambda f: f.__name__)
graphs = [make for make in MASKED if make is not architectures.subclassed]


def outputs(model, x):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))


def sparse_model(make):
    return fill(keras_es.sparsify(make(), 0.75))


@every_model
def test_the_plain_model_equals_the_masked_and_the_dense_one(make):
    sparse, dense = architectures.masked(make), architectures.dense(make)
    before = [w.numpy() for w in sparse.weights]
    plain = keras_es.strip_masks(sparse)
    x = inputs(sparse)
    for training in (False, None):
        found, expected = (
            keras.tree.map_structure(
                keras.ops.convert_to_numpy, model(x, training=training)
            )
            for model in (plain, sparse)
        )
        keras.tree.map_structure(np.testing.assert_array_equal, found, expected)

    assert [type(layer) for _, layer in walk(plain)] == [
        type(layer) for _, layer in walk(dense)
    ]
    assert [w.shape for w in plain.weights] == [w.shape for w in dense.weights]
    assert keras_es.masked_weights(plain) == []
    assert not any(hasattr(w, "masked_weight") for w in plain.weights)
    if make in graphs:
        assert type(plain) is type(dense)
        assert "keras_es" not in json.dumps(keras.saving.serialize_keras_object(plain))

    fill(plain, seed=7)
    for old, new in zip(before, sparse.weights, strict=True):
        np.testing.assert_array_equal(new.numpy(), old)
    assert len(keras_es.masked_weights(sparse)) == MASKED[make]


def test_zeros_are_baked_in():
    sparse = sparse_model(architectures.sequential)
    plain = keras_es.strip_masks(sparse)
    for masked in keras_es.masked_weights(sparse):
        kernel = plain.get_layer(masked.layer.name).kernel.numpy()
        np.testing.assert_array_equal(kernel != 0, masked.kernel_mask.numpy())


def test_a_stripped_model_trains_and_takes_lora():
    plain = keras_es.strip_masks(sparse_model(architectures.sequential))
    plain.layers[0].enable_lora(2)
    plain.compile("sgd", "mse", jit_compile=False)
    x = inputs(plain)
    plain.fit(x, np.zeros((4, 3)), verbose=0)


def test_layers_of_the_package_used_by_hand_are_stripped():
    layers = keras_es.layers
    cells = [layers.MaskedGRUCell(4, sparsity=0.5), layers.MaskedLSTMCell(4)]
    model = keras_es.ESSequential(
        [
            keras.Input((5, 8)),
            layers.MaskedDense(8, sparsity=0.5, pattern=Block(4, 1)),
            keras.layers.Bidirectional(layers.MaskedGRU(4, return_sequences=True)),
            keras.layers.RNN(cells, return_sequences=True),
            keras.layers.RNN(layers.MaskedSimpleRNNCell(4, sparsity=0.5)),
        ]
    )
    fill(model)
    x = inputs(model)
    plain = keras_es.strip_masks(model)
    assert "keras_es" not in json.dumps(keras.saving.serialize_keras_object(plain))
    np.testing.assert_array_equal(outputs(plain, x), outputs(model, x))


def test_a_plain_model_with_masked_layers_is_stripped():
    x = keras.Input((8,))
    model = keras.Model(x, keras_es.layers.MaskedDense(4, sparsity=0.5)(x))
    plain = keras_es.strip_masks(model)
    assert type(plain.layers[1]) is keras.layers.Dense
    np.testing.assert_array_equal(plain(np.ones((1, 8))), model(np.ones((1, 8))))


@keras.saving.register_keras_serializable(package="tests")
class Doubled(keras_es.layers.MaskedDense):
    def call(self, x, training=None):
        return 2 * super().call(x, training=training)


def test_a_users_masked_class_is_refused():
    model = keras.Sequential([keras.Input((8,)), Doubled(4, sparsity=0.5, name="mine")])
    with pytest.raises(ValueError, match="'mine'.*no plain class.*Received: .*Doubled"):
        keras_es.strip_masks(model)


def test_a_model_without_weights_is_refused():
    model = keras.Sequential([keras_es.layers.MaskedDense(4, sparsity=0.5)])
    with pytest.raises(ValueError, match="Build it first"):
        keras_es.strip_masks(model)


LOAD_KERAS_FILES = """
import sys
sys.modules["keras_es"] = None
import keras, numpy as np
# The composite that a user registers; here as in the process that saved it.
@keras.saving.register_keras_serializable(package="tests")
class FeedForward(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.expand = keras.layers.Dense(units, activation="relu")
    def build(self, input_shape):
        self.contract = keras.layers.Dense(input_shape[-1])
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.units))
    def call(self, x):
        return x + self.contract(self.expand(x))
for path in sys.argv[1:]:
    model = keras.saving.load_model(path + "/model.keras")
    x, y = (np.load(f"{path}/{n}.npz") for n in "xy")
    x, y = ([v[k] for k in sorted(v.files)] for v in (x, y))
    found = model(x[0] if len(x) == 1 else {"a": x[0], "b": x[1]})
    found = keras.tree.flatten(found)
    for a, b in zip(found, y, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
"""

SERVE_SAVED_MODELS = """
import sys
sys.modules["keras_es"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
for path in sys.argv[1:]:
    loaded = tf.saved_model.load(path + "/saved_model")
    x, y = (np.load(f"{path}/{n}.npz") for n in "xy")
    x, y = ([v[k] for k in sorted(v.files)] for v in (x, y))
    found = loaded.serve(x[0] if len(x) == 1 else {"a": x[0], "b": x[1]})
    for a, b in zip(tf.nest.flatten(found), y, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
"""


def run_python(code, paths):
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def write_case(folder, model, x):
    folder.mkdir()
    found = {"x": keras.tree.flatten(x), "y": keras.tree.flatten(outputs(model, x))}
    for name, arrays in found.items():
        np.savez(folder / f"{name}.npz", *arrays)


def test_stripped_files_load_where_the_package_is_not(tmp_path):
    for make in graphs:
        sparse = architectures.masked(make)
        write_case(tmp_path / make.__name__, sparse, inputs(sparse))
        plain = keras_es.strip_masks(sparse)
        plain.save(tmp_path / make.__name__ / "model.keras")
    run_python(LOAD_KERAS_FILES, [tmp_path / make.__name__ for make in graphs])


def test_saved_models_serve_with_tensorflow_only(tmp_path):
    exported = [
        architectures.two_inputs_and_outputs,
        architectures.attention,
        architectures.recurrent,
        architectures.convolutional,
        architectures.subclassed,
    ]
    for make in exported:
        sparse = architectures.masked(make)
        write_case(tmp_path / make.__name__, sparse, inputs(sparse))
        plain = keras_es.strip_masks(sparse)
        plain.export(tmp_path / make.__name__ / "saved_model", verbose=False)
    run_python(SERVE_SAVED_MODELS, [tmp_path / make.__name__ for make in exported])


@pytest.mark.parametrize("make", [architectures.sequential, architectures.attention])
def test_copies_of_a_compiled_model_are_not_compiled(make, tmp_path):
    sparse = keras_es.sparsify(make(), 0.5)
    sparse.compile(keras_es.optimizers.GuidedNES("adam"), loss="mse")
    sparse.optimizer.build(sparse.trainable_variables)
    plain = keras_es.strip_masks(sparse)
    assert not plain.compiled and not keras_es.sparsify(sparse, 0.5).compiled
    assert sparse.compiled
    plain.export(str(tmp_path / "exported"), verbose=False)
