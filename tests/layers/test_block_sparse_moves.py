"""Optimizers of masks move the blocks of block-sparse layers."""

import itertools

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers
from tests.layers.block_sparse_layers import (
    dense,
    gru,
    weights_of,
)
from tests.marks import slow_unless


def adam():
    """Return a fast optimizer of the scores: these runs are short."""
    return keras.optimizers.Adam(0.3)


METHODS = {
    "snes": lambda w: optimizers.SNES(w, 4, sigma=1.0),
    "open_es": lambda w: optimizers.OpenES(w, 4, score_optimizer=adam()),
    "bernoulli_nes": lambda w: optimizers.BernoulliNES(w, 4, score_optimizer=adam()),
    "guided_nes": lambda w: optimizers.GuidedNES(w, 4, score_optimizer=adam()),
}


def data(shape, n=64, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *shape)).astype("float32")
    return x, np.tanh(x.reshape(n, -1)[:, :2] + x.reshape(n, -1)[:, -2:])


def trained(layer, shape, method, jit=False, epochs=10):
    """Train a layer and a head; return the model, its history and the data."""
    model = keras_es.ESSequential([keras.Input(shape), layer, keras.layers.Dense(2)])
    optimizer = METHODS[method](keras.optimizers.Adam(0.01))
    model.compile(optimizer, "mse", jit_compile=jit)
    x, y = data(shape)
    history = model.fit(x, y, batch_size=16, epochs=epochs, verbose=0).history
    return model, history, (x, y)


def assert_exact(weight):
    """The deployed blocks are those of the best scores, k in each column."""
    units = weight.decode(weight.mask_scores.value).numpy()
    np.testing.assert_array_equal(weight.stored_units(), units)
    assert (units.sum(axis=0) == weight.block_index.shape[1]).all()
    assert np.isfinite(weight.kernel.numpy()).all()


KEPT = [("bernoulli_nes", False), ("guided_nes", False), ("snes", True)]
BOTH = itertools.product(METHODS, [False, True])


@pytest.mark.parametrize("method, jit", slow_unless(KEPT, BOTH))
def test_blocks_move_and_stay_exact(method, jit):
    layer = dense(activation="relu")
    model, history, (x, y) = trained(layer, (40,), method, jit)
    (weight,) = weights_of(layer)
    first = dense()
    first.build((None, 40))
    assert (weight.block_index.numpy() != first.masked_weights[0].block_index).any()
    assert_exact(weight)
    assert max(history["mask_flip_ratio"]) > 0.0
    assert history["sparsity"][-1] == pytest.approx(0.7)
    assert history["loss"][-1] < history["loss"][0]
    plain = keras_es.strip_masks(model)
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["snes", "guided_nes"])
def test_both_kernels_of_a_gru_move(method):
    layer = gru()
    _, history, _ = trained(layer, (4, 24), method)
    before = gru()
    before.build((None, 4, 24))
    for new, old in zip(weights_of(layer), weights_of(before)):
        assert (new.block_index.numpy() != old.block_index).any()
        assert_exact(new)
    assert history["loss"][-1] < history["loss"][0]


def slots_of(model, weight):
    """Return the slots of Adam that belong to a weight."""
    shape = weight.kernel.shape
    inner = model.optimizer.inner_optimizer
    found = [v for v in inner.variables if v.shape == shape]
    assert len(found) == 2
    return found


def test_blocks_that_come_in_start_at_zero_with_their_slots():
    layer = dense()
    model, _, (x, y) = trained(layer, (40,), "snes", epochs=2)
    (weight,) = weights_of(layer)
    moved = 0
    for _ in range(20):
        before = weight.stored_units().numpy()
        model.fit(x[:16], y[:16], batch_size=16, verbose=0)
        new = weight.stored_units().numpy() & ~before
        index = weight.block_index.numpy()
        fresh = np.stack([new[index[c], c] for c in range(len(index))])
        for variable in (weight.kernel, *slots_of(model, weight)):
            assert not variable.numpy()[fresh].any()
            assert variable.numpy()[~fresh].any()
        moved += fresh.sum()
    assert moved > 0


def test_the_number_of_variables_is_that_of_the_stored_blocks():
    layer = dense()
    model, _, _ = trained(layer, (40,), "guided_nes", epochs=1)
    largest = max(int(np.prod(v.shape)) for v in model.optimizer.variables)
    assert largest == weights_of(layer)[0].nnz < 40 * 48


def test_a_run_goes_on_after_loading(tmp_path):
    layer = dense()
    model, _, (x, y) = trained(layer, (40,), "snes", epochs=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for run in (model, again):
        run.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    for new, old in zip(again.weights, model.weights):
        np.testing.assert_array_equal(new, old)


def test_a_masked_and_a_block_sparse_layer_move_together():
    masked = keras_es.layers.MaskedDense(40, sparsity=0.5, mask_seed=1)
    layer = dense()
    model = keras_es.ESSequential(
        [keras.Input((40,)), masked, layer, keras.layers.Dense(2)]
    )
    model.compile(optimizers.SNES("adam", 4), "mse", jit_compile=False)
    x, y = data((40,))
    model.fit(x, y, batch_size=16, epochs=5, verbose=0)
    assert_exact(weights_of(layer)[0])
    assert int(masked.masked_weights[0].kernel_mask.numpy().sum()) == 800
