"""Gradients along directions: against reverse mode, against the law of the estimate."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es.noise.directions import Directions
from keras_es.optimizers import (
    SNES,
    FiniteDifference,
    ForwardGradient,
    RigL,
    Static,
    Turns,
)
from keras_es.populations.derivatives import along_difference, along_tangent
from tests.marks import slow_unless
from tests.reference.estimates import assert_unbiased

layers, blocks = keras.layers, keras_es.layers

EXAMPLES = 6


class InFunction(layers.Layer):
    """A dense layer that is called in a function of its own."""

    def build(self, shape):
        self.inner = layers.Dense(4)
        self.inner.build(shape)

    def call(self, x):
        return tf.function(self.inner.call, autograph=False)(x)


def recurrent(layer):
    return [keras.Input((5, 4)), layer, layers.Dense(3)]


def attention():
    x = keras.Input((4, 6))
    y = layers.MultiHeadAttention(2, 3)(x, x)
    y = layers.LayerNormalization()(x + y)
    return keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))


MODELS = {
    "dense": lambda: [keras.Input((4,)), layers.Dense(5, "relu"), layers.Dense(3)],
    "convolutions": lambda: [
        keras.Input((6, 6, 2)), layers.Conv2D(3, 3, activation="relu"),
        layers.BatchNormalization(), layers.MaxPooling2D(), layers.Flatten(),
        layers.Dropout(0.5, seed=2), layers.Dense(3),
    ],
    "attention": attention,
    "gru": lambda: recurrent(layers.GRU(4, return_sequences=False)),
    "lstm": lambda: recurrent(layers.LSTM(4)),
    "simple rnn, sequences": lambda: [
        keras.Input((5, 4)), layers.SimpleRNN(4, return_sequences=True),
        layers.Flatten(), layers.Dense(3),
    ],
    "bidirectional, masking": lambda: [
        keras.Input((5, 4)), layers.Masking(), layers.Bidirectional(layers.GRU(2)),
        layers.Dense(3),
    ],
    "stacked cells": lambda: recurrent(
        layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)])
    ),
    "unrolled gru": lambda: recurrent(layers.GRU(4, unroll=True)),
    "masked gru": lambda: recurrent(blocks.MaskedGRU(4, sparsity=0.5, mask_seed=1)),
    "block-sparse gru": lambda: recurrent(
        blocks.BlockSparseGRU(4, sparsity=0.5, block_size=2, mask_seed=1)
    ),
    "in turn over time": lambda: [
        keras.Input((5, 4)), layers.TimeDistributed(layers.Dense(2, "relu")),
        layers.Flatten(), layers.Dense(3),
    ],
    "in a function": lambda: [
        keras.Input((4,)), layers.Dense(5, "relu"), InFunction(), layers.Dense(3),
    ],
    "block-sparse dense": lambda: [
        keras.Input((4,)), blocks.BlockSparseDense(6, sparsity=0.5, block_size=2),
        layers.Dense(3),
    ],
}  # fmt: skip
KEPT = ["dense", "convolutions", "gru", "in a function", "block-sparse dense"]


def compiled(optimizer, kind="dense", jit_compile=False, **kwargs):
    keras.utils.set_random_seed(1)
    made = MODELS[kind]()
    model = made if isinstance(made, keras.Model) else keras.Sequential(made)
    model = keras_es.es_model(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile, **kwargs)
    optimizer.build(model.trainable_variables)
    return model


def batch(model, examples=EXAMPLES):
    random = np.random.default_rng(3)
    shape = (examples, *model.inputs[0].shape[1:])
    x = random.normal(size=shape).astype("float32")
    if len(shape) == 3:
        x[::2, 3:] = 0.0  # what Masking leaves out
    return tf.constant(x), tf.constant(np.arange(examples) % 3)


def gradients(model, xy, jit_compile=False):
    """The gradients of one step, as arrays."""

    def evaluate():
        population = model.optimizer.population(model, *xy, None)
        return population.evaluate().gradients

    found = tf.function(evaluate, autograph=False, jit_compile=jit_compile)()
    return [g.numpy() for g in found]


def directions_of(optimizer, variables, law="rademacher", draws=1):
    drawn = Directions(optimizer.seed, law, tf.constant(0, tf.int64))
    draws = tf.range(draws)
    shapes = {i: tuple(v.shape) for i, v in enumerate(variables)}
    return [v.numpy() for v in drawn.of_weights(shapes, draws)]


def rows(model, xy, steps):
    """The estimates of many steps, [steps, weights]."""

    def one(step):
        model.optimizer.generation.assign(step)
        population = model.optimizer.population(model, *xy, None)
        found = population.evaluate().gradients
        return tf.concat([tf.reshape(g, [-1]) for g in found], 0)

    run = tf.function(
        lambda: tf.map_fn(one, tf.range(steps, dtype=tf.int64), tf.float32, 1),
        autograph=False,
    )
    return run().numpy()


def flat(values):
    return np.concatenate([np.ravel(v) for v in values])


@pytest.mark.parametrize("kind", slow_unless(KEPT, MODELS))
def test_it_is_reverse_modes_gradient_times_the_direction(kind):
    """c v to rounding, with c = g . v of the gradient by a backward pass."""
    model = compiled(ForwardGradient("sgd", seed=3), kind)
    xy = batch(model)
    (found,) = [flat(gradients(model, xy))]
    exact = compiled(Static("sgd"), kind)
    exact.set_weights(model.get_weights())
    want = gradients(exact, xy)
    v = directions_of(model.optimizer, model.trainable_variables)
    v = [d[0] for d in v]
    for weight in model.optimizer.masked_weights:
        i = [id(u) for u in model.trainable_variables].index(id(weight.kernel))
        v[i] = np.where(weight.active(None), v[i], 0.0)
    c = flat(want) @ flat(v)
    assert abs(c) > 1e-3
    np.testing.assert_allclose(found, c * flat(v), rtol=2e-4, atol=1e-6)


class FirstPlaces(layers.Layer):
    """Adds the first rows of a table, as embeddings of positions do."""

    def build(self, shape):
        self.table = self.add_weight(shape=(shape[1] + 2, shape[2]))

    def call(self, x):
        return x + keras.ops.slice(self.table, (0, 0), x.shape[1:])


def test_slices_have_tangents_where_xla_compiles_them_first():
    """No other order of runs had traced them without XLA before; the rule is exact."""
    model = keras_es.es_model(
        keras.Sequential([keras.Input((5, 3)), FirstPlaces(), layers.Flatten()])
    )
    model.compile(ForwardGradient("sgd", seed=3), "mse")
    model.optimizer.build(model.trainable_variables)
    x = tf.random.stateless_normal((7, 5, 3), (1, 2))
    found = gradients(model, (x, tf.zeros((7, 15))), jit_compile=True)[0]
    w = model.trainable_variables[0].numpy()
    exact = np.zeros_like(w)
    exact[:5] = 2.0 * np.sum(x + w[:5], axis=0) / (7 * 15)
    v = directions_of(model.optimizer, model.trainable_variables)[0][0]
    np.testing.assert_allclose(found, np.sum(exact * v) * v, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("perturb, products", [("weights", 5), ("outputs", 5)])
def test_no_product_with_a_tangent_that_is_not_there(perturb, products):
    """x W and x V of both layers, t W of the second; of outputs the gradients' x^T."""
    model = compiled(ForwardGradient("sgd", perturb=perturb))
    xy = batch(model)

    def evaluate():
        population = model.optimizer.population(model, *xy, None)
        return population.evaluate().gradients

    compiler = tf.function(evaluate, autograph=False, jit_compile=True)
    text = compiler.experimental_get_compiler_ir()(stage="optimized_hlo")
    assert text.count(" dot(") == products


ESTIMATES = {
    "weights": (ForwardGradient, {}),
    "normal": (ForwardGradient, {"law": "normal"}),
    "two directions": (ForwardGradient, {"directions": 2}),
    "outputs": (ForwardGradient, {"perturb": "outputs"}),
    "outputs in turn": (ForwardGradient, {"perturb": "outputs", "directions": 3}),
    "outputs, normal": (
        ForwardGradient, {"perturb": "outputs", "law": "normal", "directions": 2}
    ),
    "split": (ForwardGradient, {"directions": 2, "batch_mode": "split"}),
    "difference": (FiniteDifference, {"step": 1e-2}),
    "difference, outputs": (
        FiniteDifference, {"step": 1e-2, "perturb": "outputs", "directions": 2}
    ),
}  # fmt: skip
STEPS = 2000


@pytest.mark.parametrize(
    "name", slow_unless(["weights", "outputs in turn", "difference"], ESTIMATES)
)
def test_it_is_unbiased_and_has_the_variance_of_its_law(name):
    cls, arguments = ESTIMATES[name]
    model = compiled(cls("sgd", **arguments))
    xy = batch(model)
    found = rows(model, xy, STEPS)
    truth = flat(gradients(compiled(Static("sgd")), xy))
    slack = 1e-6 if cls is ForwardGradient else 2e-4
    assert_unbiased(found, truth, slack)
    if name not in ("weights", "normal", "two directions"):
        return
    d = len(truth)
    factor = {"weights": d - 1, "normal": d + 1, "two directions": (d - 1) / 2}[name]
    spread = ((found - truth) ** 2).sum(axis=1)
    error = spread.std() / np.sqrt(STEPS)
    assert abs(spread.mean() - factor * (truth @ truth)) < 5 * error


def test_xla_and_directions_in_turns_change_nothing(monkeypatch):
    optimizer = ForwardGradient("sgd", 4)
    model = compiled(optimizer)
    xy = batch(model)
    want = flat(gradients(model, xy))
    got = flat(gradients(model, xy, jit_compile=True))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr("keras_es.populations.by_tangents.CHUNK", 100)
    np.testing.assert_allclose(flat(gradients(model, xy)), want, rtol=1e-4, atol=1e-6)


def test_differences_come_to_the_derivative_with_order_two():
    x = tf.constant(np.linspace(-1.0, 1.0, 5))
    v = tf.constant([1.0, -1.0, 1.0, 1.0, -1.0], tf.float64)

    def function(values):
        return tf.reduce_sum(tf.exp(values[0]) * tf.sin(2.0 * values[0])), None

    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    exact, _ = along_tangent(function, [x], [v], model)
    errors = [
        abs(float(along_difference(function, [x], [v], h)[0] - exact))
        for h in (0.04, 0.02, 0.01)
    ]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(orders, 2.0, atol=0.01)


def sparse(optimizer, jit_compile=False, **kwargs):
    """A half-masked network of some dozen weights."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(MODELS["dense"]())
    model = keras_es.sparsify(model, 0.5, seed=2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile, **kwargs)
    optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("perturb", ["weights", "outputs"])
def test_masked_out_weights_have_no_part(perturb):
    """Their gradient is 0, and they are no dimensions of the direction."""
    model = sparse(ForwardGradient("sgd", perturb=perturb))
    xy = batch(model)
    found = rows(model, xy, STEPS)
    exact = sparse(Static("sgd"))
    truth = flat(gradients(exact, xy))
    assert_unbiased(found, truth, 1e-6)
    masks = {id(w.kernel): w.active(None) for w in model.optimizer.masked_weights}
    active = flat(
        [masks.get(id(v), np.ones(v.shape, bool)) for v in model.trainable_variables]
    )
    assert not found[:, ~active].any()
    assert found[:, active & (truth != 0)].any(axis=0).all()
    if perturb == "weights":
        d = active.sum()
        spread = ((found - truth) ** 2).sum(axis=1)
        error = spread.std() / np.sqrt(STEPS)
        assert abs(spread.mean() - (d - 1) * (truth @ truth)) < 5 * error


def test_what_asks_of_masked_out_weights_is_told_of_them():
    """RigL grows where the dense gradient is large: directions then go everywhere."""
    model = sparse(RigL(ForwardGradient("sgd"), end_step=10))
    xy = batch(model)
    population = model.optimizer.population(model, *xy, None)
    found = population.evaluate()
    for guidance, masked in zip(found.guidance, model.optimizer.masked_weights):
        away = ~np.asarray(masked.active(None))
        assert np.asarray(guidance)[away].any()


def fit(model, epochs=1, **kwargs):
    kwargs = {"batch_size": 8, "shuffle": False, "verbose": 0} | kwargs
    x, y = batch(model, 20)
    return model.fit(x.numpy(), y.numpy(), epochs=epochs, **kwargs)


HYBRIDS = {
    "snes": lambda: SNES(
        FiniteDifference("adam", step=0.01), population_size=4, turns=Turns(4, 1)
    ),
    "guided": lambda: keras_es.optimizers.GuidedNES(
        FiniteDifference("adam", 2, perturb="outputs", step=0.01)
    ),
}


def test_masks_by_evolution_and_weights_by_differences_take_no_backward_pass(
    monkeypatch,
):
    model = sparse(HYBRIDS["snes"]())
    before = model.get_weights()

    def refuse(*args, **kwargs):
        raise AssertionError("a backward pass")

    monkeypatch.setattr(tf.GradientTape, "gradient", refuse)
    fit(model, 2)
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights())]
    assert all(changed[i] for i, v in enumerate(model.weights) if v.trainable)
    assert any(changed[i] for i, v in enumerate(model.weights) if "mask" in v.path)


KINDS = {
    "forward": lambda: ForwardGradient("adam", 2, "normal"),
    "forward, outputs": lambda: ForwardGradient("adam", 3, perturb="outputs"),
    "difference": lambda: FiniteDifference("adam", 2, batch_mode="split"),
    "hybrid": lambda: SNES(
        ForwardGradient("adam"), population_size=4, turns=Turns(4, 1)
    ),
    **HYBRIDS,
}


IN_CI = ("hybrid", "forward, outputs")


@pytest.mark.parametrize(
    "kind", slow_unless([], KINDS, [kind for kind in KINDS if kind not in IN_CI])
)
def test_it_goes_on_to_the_bit_from_a_file(kind, tmp_path):
    whole, first = sparse(KINDS[kind]()), sparse(KINDS[kind]())
    fit(whole, 3)
    fit(first)
    first.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == first.optimizer.get_config()
    fit(loaded, 2)
    for a, b in zip(whole.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(a, b)


@keras.saving.register_keras_serializable(package="test_directional")
class FailsAbove(layers.Layer):
    """Not a number where its weight is above its first value."""

    def build(self, shape):
        self.bias = self.add_weight(shape=(), initializer="zeros", name="bias")

    def call(self, x):
        return keras.ops.where(self.bias > 0.0, float("nan"), x + self.bias)


@keras.saving.register_keras_serializable(package="test_directional")
class Signs(layers.Layer):
    """x sign(W): a layer with weights of one bit."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def call(self, x):
        return x @ keras.ops.where(self.kernel >= 0.0, 1.0, -1.0)


def bits(optimizer):
    """A network of twelve weights of one bit, compiled, and its 64 examples."""
    keras.utils.set_random_seed(1)
    x = np.random.default_rng(0).choice([-1.0, 1.0], (64, 6)).astype("float32")
    y = (x[:, 0] + x[:, 1] - x[:, 2] > 0).astype("int64")
    model = keras_es.es_model(keras.Sequential([keras.Input((6,)), Signs()]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    optimizer.build(model.trainable_variables)
    return model, x, y


def test_a_network_of_bits_learns_by_differences():
    """Its loss is flat nearly everywhere: steps have to be as large as what flips."""
    optimizer = FiniteDifference(keras.optimizers.Adam(0.03), 8, step=0.3, seed=1)
    model, x, y = bits(optimizer)
    before = model.evaluate(x, y, verbose=0)[1]
    often = tf.data.Dataset.from_tensors((x, y)).repeat(200)
    model.fit(often, shuffle=False, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > before + 0.15


def test_of_bits_it_is_the_gradient_of_the_smoothed_loss():
    """Unbiased for the mean over all 4,096 directions, enumerated in NumPy."""
    step = 0.3
    model, x, y = bits(FiniteDifference("sgd", step=step, seed=1))
    kernel = model.get_weights()[0].ravel()
    v = np.array(list(itertools.product([-1.0, 1.0], repeat=12)))

    def losses(kernels):
        signs = np.where(kernels >= 0.0, 1.0, -1.0).reshape(-1, 6, 2)
        logits = np.einsum("bi,nio->nbo", x, signs)
        wrong = logits[:, np.arange(64), 1 - y] - logits[:, np.arange(64), y]
        return np.log1p(np.exp(wrong)).mean(axis=1)

    c = (losses(kernel + step * v) - losses(kernel - step * v)) / (2.0 * step)
    truth = (c[:, None] * v).mean(axis=0)
    assert np.abs(truth).max() > 0.1
    found = rows(model, (tf.constant(x), tf.constant(y)), STEPS)
    assert_unbiased(found, truth, 1e-4)


@pytest.mark.parametrize("directions", [1, 4])
def test_directions_that_are_not_finite_contribute_nothing(directions):
    """A difference has a side on which the loss fails; a tangent has none."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), FailsAbove(), layers.Dense(3)])
    model = keras_es.es_model(model)
    model.compile(FiniteDifference("sgd", directions), "mse", jit_compile=False)
    before = model.get_weights()
    x = np.ones((8, 4), "float32")
    history = model.fit(x, np.ones((8, 3)), batch_size=4, verbose=0).history
    assert history["skipped_steps"] == [2]
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


@keras.saving.register_keras_serializable(package="test_directional")
class LogOfNoise(layers.Layer):
    """Its tangent is infinite for some directions: 1e38 times the sum of them."""

    def build(self, shape):
        self.w = self.add_weight(shape=(4,), initializer="zeros", name="w")

    def call(self, x):
        return x + keras.ops.sum(self.w) * 2e38


def test_the_other_directions_of_a_step_still_count():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((1,)), LogOfNoise()])
    model = keras_es.es_model(model)
    model.compile(ForwardGradient("sgd", 16), "mae", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    xy = tf.ones((1, 1)), tf.zeros((1, 1))
    (v,) = directions_of(model.optimizer, model.trainable_variables, draws=16)
    finite = np.abs(v.sum(axis=1)) < 2  # 2e38 times 2 is more than a float holds
    assert 0 < finite.sum() < 16
    (found,) = gradients(model, xy)
    want = (2e38 * v[finite].sum(axis=1)[:, None] * v[finite]).mean(axis=0)
    np.testing.assert_allclose(found, want, rtol=1e-5)


@pytest.mark.parametrize("kind", slow_unless(["masked gru"], ["gru", "masked gru"]))
def test_recurrent_layers_under_xla_and_with_many_directions(kind):
    model = compiled(ForwardGradient("sgd", 3), kind)
    xy = batch(model)
    want = flat(gradients(model, xy))
    got = flat(gradients(model, xy, jit_compile=True))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


class Loop(layers.Layer):
    def call(self, x):
        return tf.map_fn(lambda row: row * 2.0, x)


def test_what_tangents_cannot_pass_is_refused_by_name():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), Loop(name="mapped"), layers.Dense(1)]
    )
    model = keras_es.es_model(model)
    model.compile(ForwardGradient("sgd"), "mse", jit_compile=False)
    xy = np.ones((4, 4)), np.ones((4, 1))
    with pytest.raises(ValueError, match=r"FiniteDifference(.|\n)*mapped"):
        model.fit(*xy, verbose=0)
    model.compile(FiniteDifference("sgd"), "mse", jit_compile=False)
    assert np.isfinite(model.fit(*xy, verbose=0).history["loss"]).all()


def test_a_loss_that_jumps_is_for_differences():
    def loss(y, y_pred):
        return keras.ops.cast(keras.ops.sign(y_pred) != y, "float32")

    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model = keras_es.es_model(model)
    model.compile(ForwardGradient("sgd"), loss, jit_compile=False)
    xy = np.ones((4, 4)), np.ones((4, 1))
    with pytest.raises(ValueError, match="No tangent.*Received"):
        model.fit(*xy, verbose=0)
    model.compile(FiniteDifference("sgd", step=1.0), loss, jit_compile=False)
    model.fit(*xy, verbose=0)


def test_a_layer_with_a_regularizer_has_directions_of_weights():
    """So the gradient of the regularizer is estimated too."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)), layers.Dense(3, "relu"),
            layers.Dense(2, kernel_regularizer="l2"),
        ]
    )  # fmt: skip
    model = keras_es.es_model(model)
    model.compile(
        ForwardGradient("sgd", 2, perturb="outputs"), "mse", jit_compile=False
    )
    model.optimizer.build(model.trainable_variables)
    random = np.random.default_rng(0)
    xy = tf.constant(random.normal(size=(6, 4)).astype("float32")), tf.ones((6, 2))
    found = rows(model, xy, STEPS)
    exact = keras_es.es_model(model)
    exact.compile(Static("sgd"), "mse", jit_compile=False)
    exact.optimizer.build(exact.trainable_variables)
    assert_unbiased(found, flat(gradients(exact, xy)), 2e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ForwardGradient("sgd", 0), "`directions` must be an integer"),
        (lambda: ForwardGradient("sgd", law="cauchy"), "`law` must be one of"),
        (lambda: ForwardGradient("sgd", perturb="masks"), "`perturb` must be one of"),
        (lambda: FiniteDifference("sgd", step=0), "`step` must be a number above 0"),
        (
            lambda: ForwardGradient("sgd", 2, perturb="outputs", batch_mode="split"),
            "directions of its own",
        ),
        (lambda: ForwardGradient(None), "must be a Keras optimizer"),
        (lambda: ForwardGradient(ForwardGradient("sgd")), "not of masks"),
        (
            lambda: SNES(ForwardGradient("sgd", masked_out="learn")),
            "give it `masked_out`",
        ),
        (lambda: ForwardGradient("sgd", learning_rate=1.0), "inner optimizer"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=f"{message}(.|\n)*Received"):
        make()


def test_a_model_without_such_layers_has_no_directions_of_outputs():
    model = keras_es.es_model(
        keras.Sequential([keras.Input((4,)), layers.LayerNormalization()])
    )
    model.compile(ForwardGradient("sgd", perturb="outputs"), "mse", jit_compile=False)
    with pytest.raises(ValueError, match='Take perturb="weights"(.|\n)*Received'):
        model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0)


def test_one_loss_for_all_examples_has_no_directions_of_outputs():
    def worst(y, y_pred):
        return keras.ops.max(keras.ops.square(y - y_pred))

    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model = keras_es.es_model(model)
    model.compile(ForwardGradient("sgd", perturb="outputs"), worst, jit_compile=False)
    with pytest.raises(ValueError, match="a value for each(.|\n)*Received"):
        model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
