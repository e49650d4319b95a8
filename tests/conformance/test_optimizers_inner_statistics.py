"""Rows and columns of zeros, of which masks are made, break no inner optimizer."""

import inspect

import keras
import numpy as np
import pytest

import keras_es
from keras_es.optimizers import SNES, Static

OPTIMIZERS = {
    name: cls
    for name, cls in inspect.getmembers(keras.optimizers, inspect.isclass)
    if issubclass(cls, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
}


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 6)).astype("float32")
    x[:, 5] = 0.0  # a row of the kernel without a gradient, though it has weights
    return x, rng.integers(0, 3, size=16)


def model_with_dead_rows():
    """Return a model and its first masked weight: a row and a column are all off."""
    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(3)]
    )
    model = keras_es.sparsify(plain, 0.5, seed=0)
    masked = keras_es.masked_weights(model)[0]
    scores = np.arange(30.0).reshape(6, 5)
    scores[2] = scores[:, 1] = -1.0
    masked.mask_scores.assign(scores)
    units = masked.decode(masked.mask_scores.value)
    masked.kernel_mask.assign(masked.expand(units))
    return model, masked


def compiled(model, optimizer, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False, **kwargs)
    model.optimizer.build(model.trainable_variables)
    return model


def train(model):
    x, y = data()
    for weight in (1.0, 1.0, 0.0, 1.0):  # in one step all gradients are 0
        model.train_on_batch(x, y, sample_weight=np.full(16, weight, "float32"))


def assert_finite(model):
    for variable in model.variables + model.optimizer.variables:
        assert np.isfinite(np.asarray(variable, "float32")).all(), variable.path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_break_no_statistics(name):
    arguments = {"weight_decay": 0.01, "global_clipnorm": 1.0, "use_ema": True}
    model, masked = model_with_dead_rows()
    before, mask = masked.kernel.numpy(), masked.kernel_mask.numpy()
    compiled(model, Static(OPTIMIZERS[name](**arguments)), run_eagerly=True)
    slots = model.optimizer.inner.slots[id(masked.kernel)]
    first = [slot.numpy() for slot in slots]
    train(model)
    assert_finite(model)
    after = masked.kernel.numpy()
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert np.any(after[mask] != before[mask])
    for slot, old in zip(slots, first, strict=True):
        off = ~mask.reshape(slot.shape)  # Muon flattens the state of its Adam
        np.testing.assert_array_equal(slot.numpy()[off], old[off], slot.path)


class Normed(keras.optimizers.SGD):
    """Takes steps in proportion to the norm of the weights and of the momentum."""

    def update_step(self, gradient, variable, learning_rate):
        momentum = self.momentums[self._get_variable_index(variable)]
        scale = keras.ops.norm(variable) * (1.0 + keras.ops.norm(momentum))
        super().update_step(gradient * scale, variable, learning_rate)


@pytest.mark.parametrize("name", ["Adafactor", "Lamb", "Muon", "own", "own scaled"])
def test_what_rests_does_not_scale_the_steps_of_other_weights(name):
    found = []
    for value in (0.0, 9.0):
        model, masked = model_with_dead_rows()
        if name in OPTIMIZERS:
            inner = OPTIMIZERS[name](0.05)
        else:
            inner = Normed(0.05, momentum=0.9)
        if name.endswith("scaled"):
            inner = keras.optimizers.LossScaleOptimizer(inner)
        compiled(model, Static(inner), run_eagerly=True)
        mask = masked.kernel_mask.numpy()
        slots = model.optimizer.inner.slots[id(masked.kernel)]
        # As after a mask that moved: weights have been trained, then masked out.
        for variable in (masked.kernel, *slots):
            if variable.shape == mask.shape:
                variable.assign(np.where(mask, variable.numpy(), value))
        model.train_on_batch(*data())
        assert np.all(masked.kernel.numpy()[~mask] == value)
        found.append(masked.kernel.numpy()[mask])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("make", [Static, lambda inner: SNES(inner, 4)])
def test_adafactor_in_a_graph(make):
    model, masked = model_with_dead_rows()
    before = masked.kernel.numpy()
    train(compiled(model, make(keras.optimizers.Adafactor(0.01))))
    assert_finite(model)
    assert np.any(masked.kernel.numpy() != before)


def test_adafactor_trains_a_mask_of_ones_as_keras_does():
    x, y = data()
    x[:, 5] = 1.0
    weights = []
    for masked in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        optimizer = keras.optimizers.Adafactor(0.01)
        if masked:
            model, optimizer = keras_es.sparsify(model, 0.0), Static(optimizer)
        if masked:
            compiled(model, optimizer, run_eagerly=True)
        else:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(optimizer, loss, run_eagerly=True)
        for _ in range(3):
            model.train_on_batch(x, y)
        weights.append(model.layers[-1].kernel.numpy())
    np.testing.assert_allclose(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="newer than this Keras"
)
def test_an_optimizer_of_optimizers_is_refused():
    several = keras.optimizers.MultiOptimizer(lambda v: keras.optimizers.Adam())
    with pytest.raises(ValueError, match="MultiOptimizer.*Give one.*Received"):
        Static(several)
