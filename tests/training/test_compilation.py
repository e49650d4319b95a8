"""What XLA cannot compile is found before a step is, and the step goes without."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import _compat
from keras_es.optimizers import SNES, OpenES, Static
from keras_es.training.compilation import unknown_to_xla
from tests import architectures
from tests.training.common import cross_entropy, data, mlp, sparse_mlp


@keras.saving.register_keras_serializable(package="test_compilation")
class Python(keras.layers.Layer):
    """Rounds in NumPy, inside of a branch."""

    def call(self, x):
        def rounded():
            return tf.ensure_shape(
                tf.numpy_function(lambda v: np.round(v, 2), [x], tf.float32), x.shape
            )

        return tf.cond(tf.reduce_sum(x) > -1e9, rounded, lambda: x)


class PythonMetric(keras.metrics.Mean):
    """A metric of scikit-learn's kind."""

    def update_state(self, y, y_pred, sample_weight=None):
        value = tf.numpy_function(lambda v: v.mean(), [y_pred], tf.float32)
        return super().update_state(tf.ensure_shape(value, ()))


def by_python(y, y_pred):
    return tf.ensure_shape(
        tf.py_function(lambda p: tf.reduce_mean(p, axis=-1), [y_pred], tf.float32),
        y_pred.shape[:1],
    )


def texts(n=16):
    words = np.array(["a b", "b c", "c a", "a a"])
    index = np.random.default_rng(0).integers(0, 4, size=n)
    return tf.constant(words[index][:, None]), index


def reading():
    vectors = keras.layers.TextVectorization(max_tokens=8, output_sequence_length=2)
    vectors.adapt(texts()[0])
    return keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            vectors,
            keras.layers.Embedding(8, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(4),
        ]
    )


MODELS = [
    architectures.attention,
    architectures.recurrent,
    architectures.time_distributed,
    architectures.convolutional,
]

METHODS = {
    "pure": lambda **kwargs: OpenES(None, 4, **kwargs),
    "hybrid": lambda **kwargs: SNES("sgd", 4, **kwargs),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_a_fitness_in_python(make):
    model = sparse_mlp()
    model.compile(make(fitness=by_python), cross_entropy())
    assert model.jit_compile  # not known yet
    logs = model.train_on_batch(*data(), return_dict=True)
    assert not model.jit_compile and np.isfinite(logs["loss"])
    model.evaluate(*data(), verbose=0)
    assert model.get_compile_config()["jit_compile"] == "auto"


def test_a_layer_in_python_in_predict_and_fit():
    x, y = data(16)
    model = keras_es.es_model(mlp(Python()))
    model.compile(OpenES(None, 4), cross_entropy())
    model.predict(x, verbose=0)
    assert not model.jit_compile
    model.compile(OpenES(None, 4), cross_entropy())
    assert model.jit_compile
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


def test_a_metric_in_python():
    model = sparse_mlp()
    model.compile(Static("sgd"), cross_entropy(), metrics=[PythonMetric(name="mean")])
    model.fit(*data(16), verbose=0)
    assert not model.jit_compile
    plain = sparse_mlp()
    plain.compile("sgd", cross_entropy(), metrics=[PythonMetric(name="mean")])
    plain.fit(*data(16), verbose=0)
    assert not plain.jit_compile


def test_layers_that_read_strings():
    x, y = texts()
    model = keras_es.sparsify(reading(), 0.5)
    model.compile(OpenES("sgd", 4), cross_entropy())
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()
    assert not model.jit_compile


def test_the_users_choice_is_not_doubted():
    model = sparse_mlp()
    model.compile(
        Static("sgd"), cross_entropy(), metrics=[PythonMetric()], jit_compile=True
    )
    with pytest.raises(Exception, match="PyFunc"):
        model.fit(*data(16), verbose=0)


@pytest.mark.parametrize("batch", [np.array(["a"]), tf.constant(["a"])])
def test_strings_in_a_batch(batch):
    assert unknown_to_xla(sparse_mlp(), (batch, None)) == {"string"}
    ragged = tf.ragged.constant([[1.0], [1.0, 2.0]])
    assert unknown_to_xla(sparse_mlp(), (ragged, batch)) == {"string", "RaggedTensor"}
    sparse = tf.sparse.from_dense(np.eye(2))
    assert unknown_to_xla(sparse_mlp(), sparse, trains=False) == {"SparseTensor"}


def test_sparse_tensors_are_for_members_that_see_all_of_a_batch():
    model, (x, y) = sparse_mlp(), data(4)
    model.compile(OpenES("sgd", 2), cross_entropy())
    x = tf.sparse.from_dense(x)
    with pytest.raises(ValueError, match='="full".*Received: a SparseTensor of shape'):
        model.train_on_batch(x, y)
    model.compile(OpenES("sgd", 2, "full"), cross_entropy())
    assert np.isfinite(model.train_on_batch(x, y)).all()


def test_a_trace_that_fails_says_nothing():
    assert unknown_to_xla(sparse_mlp(), np.zeros((2, 5)), trains=False) == set()


@pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
def test_what_xla_knows_is_found(build):
    model = build()
    assert unknown_to_xla(model, _compat.inputs_of(model), trains=False) == set()
