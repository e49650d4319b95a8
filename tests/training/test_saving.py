"""`.keras` files: what they hold, for every kind of model that `sparsify` makes."""

import io
import json
import zipfile

import keras
import numpy as np
import pytest

import keras_es
from keras_es.optimizers import SNES, BernoulliNES
from tests.marks import slow_unless
from tests.training.common import compiled, cross_entropy, data, sgd, sparse_mlp


@keras.saving.register_keras_serializable("tests")
class Gated(keras.layers.Layer):
    """A composite of the user's own, with leaves made at once and in `build`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.gate = keras.layers.Dense(units, "sigmoid")

    def build(self, shape):
        self.gate.build(shape)
        self.inner = keras.layers.Dense(self.units)
        self.inner.build(shape)
        super().build(shape)

    def call(self, x):
        return self.gate(x) * self.inner(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def attention():
    inputs = keras.Input((5, 8))
    x = keras.layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = keras.layers.LayerNormalization()(x + inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(x[:, 0]))


def bidirectional():
    inputs = keras.Input((5, 8))
    x = keras.layers.Bidirectional(keras.layers.GRU(4))(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def time_distributed():
    inputs = keras.Input((5, 8))
    x = keras.layers.TimeDistributed(keras.layers.Dense(4))(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def composite():
    return keras.Sequential(
        [
            keras.Input((5, 8)),
            Gated(4),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def nested():
    inner = keras.Sequential([keras.Input((5, 8)), Gated(4), keras.layers.Flatten()])
    inputs = keras.Input((5, 8))
    return keras.Model(inputs, keras.layers.Dense(3)(inner(inputs)))


def shared():
    """One layer at two places."""
    first, second = keras.Input((8,)), keras.Input((8,))
    layer = keras.layers.Dense(4)
    added = keras.layers.Concatenate()([layer(first), layer(second)])
    return keras.Model([first, second], keras.layers.Dense(3)(added))


MODELS = [attention, bidirectional, time_distributed, composite, nested, shared]


def inputs_of(model):
    rng = np.random.default_rng(0)
    shapes = [tuple(i.shape)[1:] for i in model.inputs]
    x = [rng.normal(size=(8, *shape)).astype("float32") for shape in shapes]
    return (x[0] if len(x) == 1 else x), rng.integers(0, 3, 8)


@pytest.mark.parametrize("build", slow_unless([attention, nested, shared], MODELS))
def test_every_kind_of_model_goes_on_to_the_bit(build, tmp_path):
    model = compiled(keras_es.sparsify(build(), 0.5, seed=0), SNES("adam", 2))
    x, y = inputs_of(model)
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    names = [m.name for m in keras_es.masked_weights(model)]
    assert len(names) == len(keras_es.masked_weights(loaded)) >= 2
    for each in (model, loaded):
        each.train_on_batch(x, y)
    states = [m.weights + m.optimizer.variables for m in (model, loaded)]
    for want, got in zip(*states, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=want.path)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.parametrize("build", MODELS)
def test_weights_file_of_every_kind_of_model(build, tmp_path):
    model, other = (keras_es.sparsify(build(), 0.5) for _ in range(2))
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    x, _ = inputs_of(model)
    np.testing.assert_array_equal(
        other.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@keras.saving.register_keras_serializable("tests")
def margin(y, y_pred):
    return -keras.ops.max(y_pred, axis=-1)


@keras.saving.register_keras_serializable("tests")
def halves(fitness):
    """A shaping: the better half up, the others down."""
    return keras.ops.sign(keras.ops.mean(fitness) - fitness)


def test_compile_arguments_survive(tmp_path):
    optimizer = SNES(
        keras.optimizers.AdamW(0.02, clipnorm=1.0), population_size=6,
        batch_mode="full", fitness=margin, fitness_shaping=halves, sigma=0.25,
        mean_learning_rate=keras.optimizers.schedules.CosineDecay(1.0, 9), seed=5,
    )  # fmt: skip
    model = compiled(
        sparse_mlp(), optimizer, metrics=["accuracy"], steps_per_execution=2
    )
    model.train_on_batch(*data())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.optimizer.get_config() == optimizer.get_config()
    assert loaded.optimizer.fitness is margin
    assert loaded.optimizer.fitness_shaping is halves
    assert loaded.jit_compile is False and loaded.steps_per_execution == 2
    logs = [m.train_on_batch(*data(), return_dict=True) for m in (model, loaded)]
    assert logs[0] == logs[1] and "accuracy" in logs[0]


def test_optimizer_of_the_scores_survives(tmp_path):
    scores = keras.optimizers.SGD(0.5, momentum=0.5)
    model = compiled(sparse_mlp(), BernoulliNES(sgd(), score_optimizer=scores))
    model.train_on_batch(*data())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.score_optimizer.learning_rate) == 0.5
    for want, got in zip(
        scores.variables, loaded.optimizer.score_optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_jit_auto_is_kept_by_a_loaded_model(tmp_path):
    model = sparse_mlp()
    model.compile(SNES(sgd()), cross_entropy())
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").jit_compile


def test_file_holds_no_pickle(tmp_path):
    model = compiled(sparse_mlp(), SNES(sgd(), fitness=margin))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert set(archive.namelist()) == {
            "metadata.json", "config.json", "model.weights.h5",
        }  # fmt: skip
        config = json.load(io.BytesIO(archive.read("config.json")))
    # Keras puts pickled byte code under this name.
    assert "__lambda__" not in json.dumps(config)


def test_model_that_is_not_compiled(tmp_path):
    model = sparse_mlp()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded(data()[0]), model(data()[0]))


def test_load_without_compiling(tmp_path):
    model = compiled(sparse_mlp())
    model.train_on_batch(*data())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded(data()[0]), model(data()[0]))


def test_model_masked_by_layers_of_the_user(tmp_path):
    model = keras_es.ESSequential(
        [
            keras.Input((6,)),
            keras_es.layers.MaskedDense(8, sparsity=0.5),
            keras.layers.Dense(3),
        ]
    )
    compiled(model).train_on_batch(*data())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(data()[0]), model(data()[0]))
    assert len(loaded.optimizer.masked_weights) == 1


def test_patterns_survive(tmp_path):
    patterns = keras_es.patterns
    model = keras_es.sparsify(
        composite(),
        0.5,
        pattern={".*": patterns.Block(2, 1), "gated/.*": patterns.NByM(1, 2)},
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    want, got = (keras_es.masked_weights(m) for m in (model, loaded))
    assert [m.pattern for m in got] == [m.pattern for m in want]
    assert [m.sparsity for m in got] == [m.sparsity for m in want]
    assert len({type(m.pattern) for m in got}) == 2


@pytest.mark.parametrize(
    "build", [sparse_mlp, lambda: keras_es.sparsify(nested(), 0.5)]
)
def test_where_the_package_is_not_imported_the_error_names_it(
    build, tmp_path, monkeypatch
):
    model = build()
    model.save(tmp_path / "model.keras")
    known = keras.saving.get_custom_objects()
    for name in [n for n in known if n.startswith("keras_es>")]:
        monkeypatch.delitem(known, name)
    with pytest.raises(TypeError) as error:
        keras.saving.load_model(tmp_path / "model.keras")
    start = "{'module': 'keras_es', 'class_name': '" + type(model).__name__
    assert f"{start}', 'config': {{'needs': '`import keras_es` before" in str(
        error.value
    )


def test_a_copy_by_clone_model_is_named_where_it_fails():
    copy = keras.models.clone_model(sparse_mlp())
    compiled(copy)
    with pytest.raises(RuntimeError, match="clone_model.*plain model.*from_config"):
        copy.train_on_batch(*data())
    compiled(keras_es.es_model(copy)).train_on_batch(*data())


def composites():
    layers, inputs = keras.layers, keras.Input((4, 6))
    inner = keras.Input((4, 6))
    nested = keras.Model(inner, layers.MultiHeadAttention(2, 3)(inner, inner))
    x = layers.TimeDistributed(layers.Dense(6))(nested(inputs))
    return inputs, layers.Dense(3)(layers.Bidirectional(layers.GRU(2))(x))


@pytest.mark.parametrize("sequential", [False, True])
def test_a_copy_has_the_masks_within_composites(sequential):
    model = keras.Model(*composites())
    if sequential:
        model = keras.Sequential([keras.Input((4, 6)), *model.layers[1:]])
    sparse = keras_es.sparsify(model, 0.5)
    copies = [type(sparse).from_config(sparse.get_config())]
    if not sequential:
        copies.append(keras.models.clone_model(sparse))
    want = keras_es.sparsity_report(sparse)
    for copy in copies:
        assert type(copy) is type(sparse)
        found = keras_es.sparsity_report(copy)
        assert [r["nnz"] for r in found.rows] == [r["nnz"] for r in want.rows]
        copy.set_weights(sparse.get_weights())
        x = np.ones((2, 4, 6), "float32")
        np.testing.assert_allclose(copy(x), sparse(x), 1e-6)


def test_a_lambda_as_fitness_is_loaded_as_a_lambda_loss_is(tmp_path):
    model = sparse_mlp()
    fitness = lambda y, y_pred: abs(y_pred[:, 0])  # noqa: E731
    compiled(model, SNES(sgd(), 4, fitness=fitness))
    with pytest.warns(UserWarning, match="includes a `lambda`"):
        model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="`fitness`(.|\n)*safe_mode(.|\n)*Received"):
        keras.models.load_model(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert loaded.optimizer.fitness(None, np.array([[-2.0]])) == 2.0
