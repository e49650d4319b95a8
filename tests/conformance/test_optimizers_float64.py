"""float64: weights, gradients and slots keep it, scores and noise stay float32.

Either by the dtype policy alone, which leaves Keras's own losses and metrics float32,
or with them (`set_floatx`), or for one layer of a model.
"""

import itertools

import keras
import numpy as np
import pytest

import keras_es
from keras_es.layers import BlockSparseDense, BlockSparseGRU
from keras_es.optimizers import OPTIMIZERS, PURE, Static
from tests.conformance.test_variants import OPTIONS, TAKES
from tests.marks import release, slow_unless
from tests.reference import problems, pure

MODES = ("policy", "floatx", "layer")

# All methods of masks with the policy are rows of test_optimizers_nonzeros.py, all of
# pure evolution with a layer of float64 those of test_variants.py.
GRADIENT = list(zip(sorted(OPTIMIZERS), itertools.cycle(["floatx", "layer"])))
KEPT_GRADIENT = [GRADIENT[0], GRADIENT[3]]
OTHERS = GRADIENT[4:]

EVOLVED = [(name, option) for name in sorted(PURE) for option in TAKES[name]]
EVOLVED = [(*row, mode) for row, mode in zip(EVOLVED, itertools.cycle(MODES[:2]))]
KEPT_EVOLVED = EVOLVED[5:7]
OF_EACH = list({row[0]: row for row in EVOLVED}.values())
REST = [row for row in EVOLVED if row not in KEPT_EVOLVED + OF_EACH]
MASKED_BESIDES = sorted(set(PURE) - {"snes", "pgpe"})


@pytest.fixture(autouse=True)
def floatx():
    yield
    keras.config.set_floatx("float32")


def data():
    """Eight examples of two kinds; NumPy's own float64."""
    x = np.random.default_rng(0).normal(size=(8, 6))
    return x, np.arange(8) % 2


def wide(mode):
    """Set the mode, and return arguments of the layer that has float64 in all modes."""
    if mode == "floatx":
        keras.config.set_floatx("float64")
    if mode != "layer":
        keras.config.set_dtype_policy("float64")
    return {"dtype": "float64"} if mode == "layer" else {}


def network(mode):
    """Return a network of some dozen weights, `hidden` in float64."""
    arguments = wide(mode)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, "tanh", name="hidden", **arguments),
            keras.layers.BatchNormalization(**arguments),
            keras.layers.Dense(2, "softmax", name="out"),
        ]
    )


def fit(model, epochs=1):
    """Train for two steps, or twice as many as there are epochs."""
    x, y = data()
    return model.fit(x, y, 4, epochs, shuffle=False, verbose=0).history


def trained(model, optimizer, jit_compile=False, epochs=1):
    """Return a model after some steps, of which weights and logs are as they should."""
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    start = [v.numpy() for v in model.trainable_variables]
    history = fit(model, epochs)
    assert all(np.isfinite(values).all() for values in history.values())
    assert history["skipped_steps"] == [0.0] * epochs
    values = [v.numpy() for v in model.trainable_variables]
    assert all(a.dtype == b.dtype for a, b in zip(start, values))
    assert any((a != b).any() for a, b in zip(start, values))
    assert all(m.mask_scores.dtype == "float32" for m in keras_es.masked_weights(model))
    return model


@pytest.mark.parametrize("name, mode", slow_unless(KEPT_GRADIENT, GRADIENT, OTHERS))
def test_trains_by_gradients(name, mode):
    optimizer = problems.make(name)
    model = keras_es.sparsify(network(mode), 0.5, seed=0)
    trained(model, optimizer)
    kernel = keras_es.masked_weights(model)[0].kernel
    assert problems.keeps_all_digits(kernel)
    for slots in optimizer.inner.slots.values():
        assert all(s.dtype == "float64" for s in slots) or mode == "layer"
    assert all(s.dtype == "float64" for s in optimizer.inner.slots[id(kernel)])


@pytest.mark.parametrize("name, option, mode", slow_unless(KEPT_EVOLVED, EVOLVED, REST))
def test_evolves(name, option, mode):
    sigma = {} if name == "alopex" else {"sigma": 0.1}
    optimizer = pure.make(name, seed=3, **OPTIONS[option], **sigma)
    model = keras_es.es_model(network(mode))
    trained(model, optimizer)
    assert problems.keeps_all_digits(model.get_layer("hidden").kernel)


@pytest.mark.parametrize("name", slow_unless(["snes"], sorted(PURE), MASKED_BESIDES))
def test_masks_evolve_with_weights(name):
    model = keras_es.sparsify(network("floatx"), 0.5, seed=0)
    # A genetic algorithm's weights are those of its best, which may be the first.
    epochs = 10 if name == "genetic_algorithm" else 1
    trained(model, pure.make(name, seed=3), epochs=epochs)
    assert problems.keeps_all_digits(model.get_layer("hidden").kernel)


@pytest.mark.parametrize("mode", ["floatx", release("policy"), release("layer")])
def test_block_sparse_layers(mode):
    arguments = wide(mode)
    model = keras_es.ESSequential(
        [
            keras.Input((6,)),
            keras.layers.Reshape((3, 2)),
            BlockSparseGRU(4, sparsity=0.5, block_size=2, **arguments),
            BlockSparseDense(2, "softmax", sparsity=0.5, block_size=(2, 1)),
        ]
    )
    trained(model, problems.make("guided_nes"))
    assert all(map(problems.keeps_all_digits, model.layers[1].trainable_variables[:2]))


@pytest.mark.parametrize("mode", ["floatx", release("policy"), release("layer")])
def test_goes_through_files_and_back_to_plain(mode, tmp_path):
    model = keras_es.sparsify(network(mode), 0.5, seed=0)
    trained(model, problems.make("snes"))
    x, _ = data()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    plain = keras_es.strip_masks(model)
    assert problems.keeps_all_digits(plain.get_layer("hidden").kernel)
    np.testing.assert_array_equal(plain(x), model(x))
    for each in (model, loaded):
        fit(each)
    problems.assert_same(problems.weights_of(model), problems.weights_of(loaded))


@pytest.mark.parametrize("mode", ["floatx", release("policy"), release("layer")])
def test_xla(mode):
    model = keras_es.sparsify(network(mode), 0.5, seed=0)
    trained(model, pure.make("snes", seed=3), jit_compile=True)


@pytest.mark.parametrize("name", ["centered_rank", "nes", "best_only", "raw"])
def test_utilities_are_those_of_float32(name):
    losses = np.array([3.0, 1.0, np.inf, 1.0], "float32")
    shape = keras_es.ops.fitness.get(name)
    want = shape(keras.ops.convert_to_tensor(losses))
    keras.config.set_floatx("float64")
    got = shape(keras.ops.convert_to_tensor(losses, "float32"))
    assert got.dtype == want.dtype == "float32"
    np.testing.assert_array_equal(got, want)


def test_weights_of_float64_move_by_less_than_float32_can_tell():
    variable = keras.Variable([1.0, 1.0], dtype="float64")
    optimizer = PURE["snes"](None, population_size=4, sigma=1e-12)
    optimizer.build([variable])
    optimizer.tell([0.0, 1.0, 2.0, 3.0])
    assert 0.0 < np.abs(variable.numpy() - 1.0).max() < 1e-10


def test_static_is_adam_in_float64():
    """At sparsity 0 a step is one of plain Keras, to float64's digits."""
    plain = network("floatx")
    masked = keras_es.sparsify(plain, 0.0)
    for model, optimizer in ((plain, "adam"), (masked, Static("adam"))):
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        fit(model)
    for a, b in zip(plain.weights, keras_es.strip_masks(masked).weights, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-14)
