"""Tickets: saved and loaded, their models, controls and transfers."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import lottery
from keras_es.lottery.masking import named_weights, plain_values, plain_variables
from keras_es.lottery.ticket import CONTROLS
from keras_es.optimizers import PGPE
from keras_es.runs.errors import RunError
from tests.lottery.common import DATA, PLAIN, build
from tests.marks import slow


@pytest.fixture(scope="module")
def ticket():
    """Two rounds of random pruning."""
    keras.utils.set_random_seed(4)
    ticket, rng = lottery.Ticket.dense(build()), np.random.default_rng(3)
    for share in (0.5, 0.4):
        ticket = ticket.pruned(
            {n: m & (rng.random(m.shape) < share) for n, m in ticket.masks.items()}
        )
    return ticket


def test_saved_and_loaded_it_is_the_same(ticket, tmp_path):
    ticket.history = [{"round": 0, "loss": 0.5}]
    ticket.save(tmp_path / "one.npz")
    loaded = lottery.Ticket.load(tmp_path / "one.npz")
    assert repr(loaded) == repr(ticket) and loaded.history == ticket.history
    for a, b in zip(loaded.model().weights, ticket.model().weights):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(loaded.at(1).masks.values(), ticket.at(1).masks.values()):
        np.testing.assert_array_equal(a, b)
    ticket.history = []


def test_what_is_no_ticket_is_refused(ticket, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no ticket"):
        lottery.Ticket.load(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="no ticket, or damaged"):
        lottery.Ticket.load(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match="`round` must be at most 2"):
        ticket.at(3)
    with pytest.raises(ValueError, match="that were pruned before"):
        ticket.pruned({n: np.ones(m.shape, bool) for n, m in ticket.masks.items()})
    with pytest.raises(ValueError, match="`kind` must be one of"):
        ticket.control("best")
    with pytest.raises(ValueError, match="`ticket` must be a keras_es.lottery.Ticket"):
        lottery.transfer(build(), "sgd", DATA, steps=1)
    with pytest.raises(ValueError, match=r"`seed` must be an integer in \[0, 2\*\*31"):
        lottery.transfer(ticket, "sgd", DATA, steps=1, seed=2**31)


def test_the_model_has_its_masks_and_values_and_trains_in_plain_keras(ticket):
    model = ticket.model()
    for value, first in zip(plain_values(model), ticket.values):
        np.testing.assert_array_equal(value, first)
    assert keras_es.sparsity_report(model).nonzero_masked == ticket.nonzero
    model.compile(keras.optimizers.AdamW(0.1), "sparse_categorical_crossentropy",
                  **PLAIN)  # fmt: skip
    model.fit(*DATA, batch_size=32, verbose=0)
    for name, masked in named_weights(model).items():
        acts = np.asarray(masked.effective_value()) != 0.0
        np.testing.assert_array_equal(acts, ticket.masks[name])


def counts(ticket):
    return [
        [int(m.sum()) for m in ticket.at(r).masks.values()]
        for r in range(ticket.round + 1)
    ]


def test_controls_differ_only_where_they_should(ticket):
    layerwise = ticket.control("layerwise_random", 1)
    assert counts(layerwise) == counts(ticket)
    anywhere = ticket.control("random", 1)
    assert [sum(c) for c in counts(anywhere)] == [sum(c) for c in counts(ticket)]
    assert counts(anywhere) != counts(ticket)
    for control in (layerwise, anywhere):
        assert any(
            np.any(a != b)
            for a, b in zip(control.masks.values(), ticket.masks.values())
        )
        for a, b in zip(control.values, ticket.values):
            np.testing.assert_array_equal(a, b)
    anew = ticket.control("reinitialized", 1)
    for a, b in zip(anew.masks.values(), ticket.masks.values()):
        np.testing.assert_array_equal(a, b)
    kernels = [(a, b) for a, b in zip(anew.values, ticket.values) if a.ndim > 1]
    assert all(np.all(a != b) for a, b in kernels)
    for kind in CONTROLS:  # a function of the seed
        first, again, other = (ticket.control(kind, seed) for seed in (1, 1, 2))
        same = [
            all(np.array_equal(x, y) for x, y in zip(_all(first), _all(b)))
            for b in (again, other)
        ]
        assert same == [True, False]


def _all(ticket):
    return [*ticket.values, *ticket.masks.values()]


def test_a_random_control_leaves_no_layer_empty():
    ticket = lottery.Ticket.dense(build())
    one = {n: np.zeros(m.shape, bool) for n, m in ticket.masks.items()}
    for mask in one.values():
        mask.flat[0] = True
    ticket = ticket.pruned(one)
    for seed in range(8):
        assert counts(ticket.control("random", seed))[1] == [1, 1]


def test_a_control_draws_anew_whatever_seed_the_model_was_built_with():
    keras.utils.set_random_seed(1)
    ticket = lottery.Ticket.dense(build())
    values = ticket.control("reinitialized", 1).values
    assert np.all(values[0] != ticket.values[0])


def test_values_that_cannot_be_drawn_anew_are_an_error():
    kernel = keras.initializers.GlorotUniform(seed=3)
    layers = [keras.Input((4,)), keras.layers.Dense(2, kernel_initializer=kernel)]
    ticket = lottery.Ticket.dense(keras.Sequential(layers))
    with pytest.raises(ValueError, match="leave `seed` out of the initializers"):
        ticket.control("reinitialized")


def test_convolutions_recurrent_layers_and_statistics():
    layers = keras.layers
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(3, 3, padding="same")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Reshape((6, 18))(x)
    plain = keras.Model(inputs, layers.Dense(2)(layers.GRU(4)(x)))
    ticket = lottery.Ticket.dense(plain)
    assert len(ticket.masks) == 4  # of the cell two
    half = {
        n: np.arange(m.size).reshape(m.shape) % 2 == 0 for n, m in ticket.masks.items()
    }
    model = ticket.pruned(half).model()
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype("float32")
    bare = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(plain)
    )
    values = []
    masks = {m.kernel.path: m for m in named_weights(model).values()}
    for v, value in zip(plain_variables(model), ticket.values):
        masked = masks.get(v.path)
        mask = 1 if masked is None else np.asarray(masked.deployed_mask())
        values.append(value * mask)
    bare.set_weights(values)
    np.testing.assert_allclose(model(x), bare(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["adam", slow(None)])
def test_transfer_to_another_method(ticket, strategy, tmp_path):
    strategy = strategy or PGPE(None, 8, sigma=0.1)
    arguments = {"steps": 3, "batch_size": 8, "compile_arguments": PLAIN}
    model, logs = lottery.transfer(
        ticket, strategy, DATA, validation_data=DATA, folder=tmp_path, **arguments
    )
    assert keras_es.sparsity_report(model).nonzero_masked == ticket.nonzero
    assert {"loss", "val_loss", "seconds"} <= set(logs)
    moved = plain_values(model)[0] != ticket.values[0]
    # A weight to a unit that nothing reads may rest.
    assert np.any(moved) and not np.any(moved & ~ticket.masks["hidden/kernel"])
    x, y = DATA  # A fit that is done is of these data and of this ticket.
    for other, data in ((ticket, (2 * x, y)), (ticket.control("random"), DATA)):
        with pytest.raises(RunError, match="not of this run"):
            lottery.transfer(other, strategy, data, folder=tmp_path, **arguments)
