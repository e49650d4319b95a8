"""Copies by `sparsify` and `strip_masks` have all the state that Keras's files have."""

import json
import pathlib

import keras
import numpy as np
import pytest

import keras_es
from keras_es.conversion.clone import clone
from keras_es.layers.tree import walk

WORDS = ["red", "green", "blue", "green"]
TEXT = np.array([["red green"], ["blue"], ["green green"], ["other"]])
NUMBERS = np.random.default_rng(0).normal(5.0, 3.0, (8, 4)).astype("float32")


class Counts(keras.layers.Layer):
    """A user's layer, not registered, with state in a variable, a number and a file."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.offset = 1.0, 0.0

    def build(self, shape):
        self.weight = self.add_weight(shape=shape[-1:], trainable=False)
        super().build(shape)

    def adapt(self, x):
        self.build(x.shape)
        self.weight.assign(x.std(axis=0))
        self.scale, self.offset = float(x.max()), float(x.mean())

    def call(self, x):
        return (x - self.offset) * self.weight / self.scale

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["scale"] = np.array(self.scale)

    def load_own_variables(self, store):
        self.scale = float(store["scale"])
        self.weight.assign(store["0"])

    def save_assets(self, folder):
        (pathlib.Path(folder) / "offset.json").write_text(json.dumps(self.offset))

    def load_assets(self, folder):
        self.offset = json.loads((pathlib.Path(folder) / "offset.json").read_text())


def adapted(layer, data):
    layer.adapt(data)
    return layer


def texts():
    layer = keras.layers.TextVectorization(output_mode="multi_hot", max_tokens=6)
    return adapted(layer, WORDS), TEXT, "string", 1


def strings():
    layer = keras.layers.StringLookup(output_mode="multi_hot")
    return adapted(layer, WORDS), np.array([["red"], ["no"]]), "string", 1


def integers():
    layer = keras.layers.IntegerLookup(output_mode="multi_hot")
    return adapted(layer, [3, 5, 3, 9]), np.array([[5], [7]]), "int64", 1


def normalized():
    return adapted(keras.layers.Normalization(), NUMBERS), NUMBERS, "float32", 4


def binned():
    layer = keras.layers.Discretization(num_bins=3, output_mode="multi_hot")
    return adapted(layer, NUMBERS), NUMBERS, "float32", 4


def counted():
    return adapted(Counts(), NUMBERS), NUMBERS, "float32", 4


def alone(layer, x):
    return layer(x)


def nested(layer, x):
    y = keras.Input(x.shape[1:], dtype=x.dtype)
    return keras.Model(y, keras.Sequential([layer])(y), name="inner")(x)


def twice(layer, x):
    """In a sub-model and outside of it."""
    return keras.layers.Add()([layer(x), nested(layer, x)])


def dense_after(make, place):
    layer, data, dtype, width = make()
    x = keras.Input((width,), dtype=dtype)
    model = keras.Model(x, keras.layers.Dense(3)(place(layer, x)))
    return model, data


def outputs(model, x):
    x = keras.ops.convert_to_tensor(x)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))


@pytest.mark.parametrize("place", [alone, nested, twice])
@pytest.mark.parametrize(
    "make", [normalized, binned, texts, strings, integers, counted]
)
def test_state_that_is_no_weight_comes_through(make, place):
    model, x = dense_after(make, place)
    expected = outputs(model, x)
    assert np.ptp(expected, axis=0).min() > 0.0
    sparse = keras_es.sparsify(model, 0.0)
    np.testing.assert_array_equal(outputs(sparse, x), expected)
    np.testing.assert_array_equal(outputs(keras_es.strip_masks(sparse), x), expected)


@pytest.mark.parametrize("make", [normalized, texts])
def test_in_sequential_models_too(make):
    layer, data, dtype, width = make()
    model = keras.Sequential(
        [keras.Input((width,), dtype=dtype), layer, keras.layers.Dense(2)]
    )
    sparse = keras_es.sparsify(model, 0.0)
    assert type(keras_es.es_model(model)) is type(sparse) is keras_es.ESSequential
    for copy in (sparse, keras_es.es_model(model), keras_es.strip_masks(sparse)):
        np.testing.assert_array_equal(outputs(copy, data), outputs(model, data))


def used_inside_and_outside():
    shared = keras.layers.Dense(8, activation="tanh", name="shared")
    y = keras.Input((8,))
    inner = keras.Model(y, shared(shared(y)), name="inner")
    x = keras.Input((8,))
    return keras.Model(x, keras.layers.Dense(2)(shared(inner(inner(x)))))


def used_outside_first():
    shared = keras.layers.Dense(8, name="shared")
    x = keras.Input((8,))
    first = shared(x)
    inner = keras.Sequential([keras.Input((8,)), shared], name="inner")
    return keras.Model(x, inner(first))


def in_a_wrapper():
    shared = keras.layers.Dense(8, name="shared")
    x = keras.Input((3, 8))
    inner = keras.Sequential([keras.Input((8,)), shared])
    return keras.Model(x, shared(keras.layers.TimeDistributed(inner)(x)))


@pytest.mark.parametrize(
    "make", [used_inside_and_outside, used_outside_first, in_a_wrapper]
)
def test_a_layer_used_in_and_out_of_a_sub_model_stays_one(make):
    model = make()
    x = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:]))
    sparse = keras_es.sparsify(model, 0.5)
    kinds = [type(layer).__name__ for _, layer in walk(sparse)]
    assert kinds.count("MaskedDense") == len(keras_es.masked_weights(sparse))
    assert len(sparse.trainable_variables) == len(model.trainable_variables)
    plain = keras_es.strip_masks(sparse)
    np.testing.assert_array_equal(outputs(plain, x), outputs(sparse, x))
    assert len(plain.weights) == len(model.weights)
    dense = keras_es.sparsify(model, 0.0)
    np.testing.assert_array_equal(outputs(dense, x), outputs(model, x))


def wavy(x):
    return keras.ops.sin(x)


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype)


def test_functions_and_classes_of_the_user_need_no_registration():
    x = keras.Input((4,))
    y = keras.layers.Dense(4, activation=wavy, kernel_initializer=Ones())(x)
    model = keras.Model(x, y)
    copy = keras_es.sparsify(model, 0.0)
    np.testing.assert_array_equal(outputs(copy, NUMBERS), outputs(model, NUMBERS))


def test_lora_stays_apart_to_the_bit():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.layers[0].enable_lora(2)
    rng = np.random.default_rng(3)
    for variable in model.variables:
        variable.assign(rng.normal(size=variable.shape))
    copy = clone(model)
    for new, old in zip(copy.variables, model.variables, strict=True):
        np.testing.assert_array_equal(new, old)


class Named(keras.Model):
    """A functional model with a constructor and a method of its own."""

    def __init__(self, units, **kwargs):
        self.units = units
        self.hidden = keras.layers.Dense(units)
        x = keras.Input((4,))
        super().__init__(x, keras.layers.Dense(2)(self.hidden(x)), **kwargs)

    def answer(self):
        return 42

    def get_config(self):
        return {"units": self.units, "name": self.name}


keras.saving.register_keras_serializable("tests")(Named)


def test_a_class_of_the_users_keeps_its_methods(tmp_path):
    model = Named(4)
    sparse = keras_es.sparsify(model, 0.5)
    assert type(model) is Named and isinstance(sparse, (Named, keras_es.ESMixin))
    assert isinstance(sparse, Named) and sparse.answer() == 42
    assert sparse.layers[1] is sparse.hidden
    sparse.compile(keras_es.optimizers.SNES("sgd", 2), "mse", run_eagerly=True)
    logs = sparse.fit(NUMBERS, np.zeros((8, 2)), verbose=0).history
    assert logs["sparsity"] == [0.5]
    sparse.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(sparse)
    assert type(again.optimizer) is keras_es.optimizers.SNES
    np.testing.assert_array_equal(outputs(again, NUMBERS), outputs(sparse, NUMBERS))
    plain = keras_es.strip_masks(again)
    assert type(plain) is Named and plain.units == 4
    np.testing.assert_array_equal(outputs(plain, NUMBERS), outputs(sparse, NUMBERS))


def test_es_model_gives_a_class_of_the_users_in_place():
    model = Named(4)
    same = keras_es.es_model(model)
    assert same is model and isinstance(same, keras_es.ESMixin)
    same.compile(keras_es.optimizers.OpenES(None, 2), "mse", jit_compile=False)
    assert same.has_members() and same.answer() == 42


class OwnStep(Named):
    def train_step(self, data):
        return super().train_step(data)


class NoConfig(keras.Model):
    def __init__(self, sizes, label):
        x = keras.Input(sizes)
        super().__init__(x, keras.layers.Dense(2)(x))
        self.label = label


def test_what_cannot_be_copied_or_trained_is_refused_by_name():
    for call in (lambda m: keras_es.sparsify(m, 0.5), keras_es.es_model):
        with pytest.raises(ValueError, match="OwnStep has a `train_step` of its own"):
            call(OwnStep(2))
    with pytest.raises(ValueError, match="NoConfig.*cannot be copied.*keras.Model"):
        keras_es.sparsify(NoConfig((4,), object()), 0.5)


def test_a_config_that_makes_another_model_is_refused():
    class Growing(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.parts = []

        def grow(self):
            self.parts = [keras.layers.Dense(4)]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    x, layer = keras.Input((4,)), Growing()
    layer.grow()
    model = keras.Model(x, layer(x))
    with pytest.raises(ValueError, match="makes other layers than it has.*Dense"):
        keras_es.sparsify(model, 0.5)


def test_methods_that_keras_bound_follow_the_class():
    plain = keras.Sequential([keras.Input((3, 4)), keras.layers.GRU(2)])
    sparse = keras_es.sparsify(plain, 0.5)
    for model, prefix in ((sparse, "Masked"), (keras_es.strip_masks(sparse), "GRU")):
        layer = model.layers[0]
        for each in (layer, layer.cell):
            for name in ("build", "quantize"):
                bound = [c.cell_contents for c in vars(each)[name].__closure__]
                bound = [m for m in bound if getattr(m, "__name__", "") == name]
                assert [m.__func__ for m in bound] == [getattr(type(each), name)]
            assert type(each).__name__.startswith(prefix)
