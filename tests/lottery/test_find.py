"""Rounds of pruning: nested, exact, rewound and resumed to the bit."""

import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import lottery, noise
from keras_es.callbacks import TrainingStopped
from keras_es.lottery import scores
from keras_es.lottery.data import stream
from keras_es.lottery.masking import named_weights, plain_values
from keras_es.optimizers import PGPE, SNES, GuidedNES, OpenES, SepCMAES, Static
from keras_es.runs.errors import RunError
from tests.lottery.common import DATA, PLAIN, build, find, snes
from tests.marks import slow

X, Y = DATA


class Stop(keras.callbacks.Callback):
    """Sends this process a signal after so many steps, once."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        self.after -= 1
        if self.after == 0:
            signal.raise_signal(signal.SIGTERM)


class Kept:
    """What `on_round` saw: tickets, and values of all weights, by round."""

    def __init__(self):
        self.tickets, self.values, self.snr = [], [], []

    def __call__(self, model, ticket):
        self.tickets.append(ticket)
        self.values.append(plain_values(model))
        if not isinstance(model.optimizer, Static):
            self.snr.append(scores.snr(model))


def flat(arrays):
    return np.concatenate([a.ravel() for a in arrays.values()])


@pytest.fixture(scope="module")
def found():
    kept = Kept()
    ticket = find(on_round=kept, validation_data=DATA)
    return ticket, kept


def test_masks_are_nested_and_their_numbers_exact(found):
    ticket, _ = found
    assert [row["weights"] for row in ticket.history] == [45, 22, 11]
    masks = [ticket.at(r).masks for r in range(3)]
    for before, after in zip(masks, masks[1:]):
        assert all(not np.any(after[n] & ~before[n]) for n in after)
    assert [sum(m.sum() for m in ms.values()) for ms in masks] == [45, 22, 11]
    assert ticket.history[2]["nonzero"] == {
        n: int(m.sum()) for n, m in ticket.masks.items()
    }
    assert all("val_accuracy" in row for row in ticket.history)


def test_the_percentile_is_one_of_all_weights_by_their_snr(found):
    ticket, kept = found
    for r in (0, 1):
        before, after = (flat(ticket.at(i).masks) for i in (r, r + 1))
        ratios = flat(kept.snr[r])
        assert ratios[after].min() >= ratios[before & ~after].max()
        assert np.all(ratios[~before] == 0.0)


def test_each_round_begins_with_the_first_values_to_the_bit(found):
    ticket, kept = found
    keras.utils.set_random_seed(4)
    for value, first in zip(ticket.values, build().get_weights()):
        np.testing.assert_array_equal(value, first)
    for r, trained in enumerate(kept.values):
        mask = ticket.at(r).masks["hidden/kernel"]
        same = trained[0] == ticket.values[0]
        # All that is left was searched, and nothing else was touched.
        np.testing.assert_array_equal(same, ~mask)


def test_the_state_and_seed_of_the_strategy_are_fresh(found):
    from keras_es.lottery import methods

    strategy = snes()
    first, second = (methods.fresh(strategy, r) for r in (0, 1))
    assert first.noise == second.noise == noise.Active() and strategy.noise is None
    assert first.seed == strategy.seed and second.seed != first.seed
    assert not first.built


def resumed(tmp_path, after, **kwargs):
    """Run until a signal comes after some steps, then to the end."""
    with pytest.raises(TrainingStopped, match="SIGTERM"):
        find(folder=tmp_path, callbacks=[Stop(after)], **kwargs)
    return find(folder=tmp_path, **kwargs)


def same(a, b):
    assert a.round == b.round
    for name in a.masks:
        np.testing.assert_array_equal(a.masks[name], b.masks[name])
    for x, y in zip(a.values, b.values):
        np.testing.assert_array_equal(x, y)
    for x, y in zip(a.history, b.history):
        x, y = ({k: v for k, v in row.items() if k != "seconds"} for row in (x, y))
        # Sums of a part of an epoch are those of that part alone.
        assert {k: x[k] for k in ("weights", "nonzero")} == {
            k: y[k] for k in ("weights", "nonzero")
        }
        assert x.get("val_loss") == y.get("val_loss")


@pytest.mark.slow
def test_a_round_goes_on_from_its_midst_to_the_bit(found, tmp_path):
    # Six steps are two of the second round.
    ticket = resumed(tmp_path, 6, validation_data=DATA)
    same(ticket, found[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ticket.npz"]
    # What is finished stays, and another run is refused.
    same(find(folder=tmp_path, validation_data=DATA), ticket)
    with pytest.raises(RunError, match=r"another run: its keep is 0\.5.*keep=0\.25"):
        find(folder=tmp_path, keep=0.25)


GRADIENT = {"strategy": "adam", "score": "magnitude"}


def test_rewinding_to_a_step_is_to_the_bit_and_resumes(tmp_path):
    kept = Kept()
    ticket = find(rewind=2, on_round=kept, validation_data=DATA, **GRADIENT)
    keras.utils.set_random_seed(4)
    trained, _ = lottery.transfer(
        lottery.Ticket.dense(build()), "adam", DATA, steps=2, batch_size=8,
        compile_arguments=PLAIN,
    )  # fmt: skip
    for value, at_step in zip(ticket.values, plain_values(trained)):
        np.testing.assert_array_equal(value, at_step)
    same(resumed(tmp_path, 3, rewind=2, validation_data=DATA, **GRADIENT), ticket)
    # What is in the folder is of these data, this loss and this network.
    for name, other in {
        "data": (2 * X, Y), "loss": "mse", "class_weight": {0: 2.0},
        "loss_weights": [2.0],
    }.items():  # fmt: skip
        given = {name: other}
        if name == "loss_weights":
            given = {"compile_arguments": {**PLAIN, **given}}
        with pytest.raises(RunError, match=f"of another run: its {name} is"):
            find(folder=tmp_path, rewind=2, **GRADIENT, **given)
    layers = [keras.Input((6,)), keras.layers.Dense(3, "softmax")]
    with pytest.raises(RunError, match="is of another network"):
        find(
            folder=tmp_path, rewind=2, network=lambda: keras.Sequential(layers),
            **GRADIENT,
        )  # fmt: skip


@pytest.mark.slow
def test_learning_rate_rewinding_goes_on_from_trained_values():
    kept = Kept()
    ticket = find(
        rewind="learning_rate", on_round=kept, rounds=1, **GRADIENT
    )  # fmt: skip
    for value, last in zip(ticket.values, kept.values[1]):
        np.testing.assert_array_equal(value, last)


@pytest.mark.slow
def test_a_schedule_goes_on_where_values_were_rewound_to():
    seen = []
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)

    class Steps(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(float(self.model.optimizer.learning_rate))

    strategy = keras.optimizers.SGD(rate)
    find(strategy, score="magnitude", rewind=3, rounds=1, callbacks=[Steps()])
    np.testing.assert_allclose(seen, [0.1, 0.1 / 8, 0.1 / 8])


@pytest.mark.slow
def test_one_shot_is_decided_by_the_first_fit():
    kept = Kept()
    ticket = find("adam", score="final", on_round=kept)
    size = np.abs(np.concatenate([kept.values[0][i].ravel() for i in (0, 2)]))
    for r, count in ((1, 22), (2, 11)):
        masks = np.concatenate([m.ravel() for m in ticket.at(r).masks.values()])
        assert masks.sum() == count
        assert size[masks].min() >= size[~masks].max()


@pytest.mark.slow
def test_snip_keeps_what_a_change_of_would_tell():
    kept = Kept()
    ticket = find("sgd", score="snip", rounds=1, on_round=kept)
    model = lottery.Ticket.dense(build()).model()
    model.set_weights(kept.tickets[0].model().get_weights())
    model.compile("sgd", "sparse_categorical_crossentropy")
    by_hand = scores.snip(model, stream(DATA, 8, 0, 0))
    flat = np.concatenate([s.ravel() for s in by_hand.values()])
    masks = np.concatenate([m.ravel() for m in ticket.masks.values()])
    assert flat[masks].min() >= flat[~masks].max()


@pytest.mark.parametrize(
    "make", [slow(SNES), slow(PGPE), SepCMAES], ids=lambda cls: cls.__name__
)
def test_snr_is_the_mean_over_the_std_of_a_member(make):
    ticket = lottery.Ticket.dense(build())
    half = {n: np.arange(m.size).reshape(m.shape) % 2 == 0 for n, m in
            ticket.masks.items()}  # fmt: skip
    model = ticket.pruned(half).model()
    model.compile(make(None, 8, sigma=0.5, noise=noise.Active()), "mse", **PLAIN)
    model.optimizer.build(model.trainable_variables)
    kernel = named_weights(model)["out/kernel"].kernel
    kernel.assign(np.full(kernel.shape, -3.0))
    search = model.optimizer
    index = [v.path for v in search.search.space.weights].index(kernel.path)
    if make is SepCMAES:  # sigma 0.5 and C 4: a std of 1, and not of 2.
        search._variances[index].assign(np.full(8, 4.0))
        wanted = 3.0 / (0.5 * 2.0)
    else:
        search._stds[index].assign(np.full(8, 0.25))
        wanted = 3.0 / 0.25
    found = scores.snr(model)["out/kernel"]
    np.testing.assert_allclose(found, np.where(half["out/kernel"], wanted, 0.0))


def test_survivors_by_hand():
    found = {"a": np.array([5.0, 4.0, 3.0]), "b": np.array([1.0, np.nan, 2.0])}
    masks = {n: np.ones(3, bool) for n in found}
    kept = scores.survivors(found, masks, 3, layerwise=False)
    assert kept["a"].tolist() == [True, True, False]  # a layer keeps its best one
    assert kept["b"].tolist() == [False, False, True]
    kept = scores.survivors(found, masks, 4, layerwise=True)
    assert kept["a"].tolist() == [True, True, False]
    assert kept["b"].tolist() == [True, False, True]
    equal = {n: np.zeros(3) for n in found}
    kept = scores.survivors(equal, masks, 4, layerwise=False)
    assert sum(int(m.sum()) for m in kept.values()) == 4
    kept = scores.survivors(equal, masks, 0, layerwise=False)
    assert [m.tolist() for m in kept.values()] == [[True, False, False]] * 2


def test_scores_of_ones_own_and_layers_left_out():
    def first(model):
        return {n: -np.arange(float(np.prod(m.shape))).reshape(m.shape)
                for n, m in named_weights(model).items()}  # fmt: skip

    ticket = find("sgd", score=first, rounds=1, exclude=["out"], layerwise=True)
    assert [*ticket.masks] == ["hidden/kernel"]
    assert ticket.masks["hidden/kernel"].ravel().tolist() == [True] * 15 + [False] * 15


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": 1.0}, "`keep` must be a number between 0 and 1"),
        ({"rounds": 0}, "`rounds` must be an integer of at least 1"),
        ({"score": "best"}, "`score` must be one of"),
        ({"score": "layerwise_random"}, r"ticket\.control\('layerwise_random'\)"),
        ({"rewind": 4}, "`rewind` must be an integer of at least 0, below `steps`"),
        ({"rewind": "weights"}, "`rewind` must be"),
        ({"strategy": "sgdd"}, "a Keras optimizer or its name"),
        ({"strategy": GuidedNES("sgd")}, "must leave masks as they are"),
        ({"strategy": SNES("sgd")}, "must leave masks as they are"),
        ({"strategy": "sgd"}, 'Give score="magnitude"'),
        ({"strategy": OpenES(None)}, 'Give score="magnitude"'),
        ({"epochs": 3}, r"\['epochs'\] of `fit` are decided"),
        ({"validation_freq": 2}, r"\['validation_freq'\] of `fit` are decided"),
        ({"seed": 2**20}, r"`seed` must be an integer in \[0, 2\*\*20\)"),
        ({"batch_size": 33}, "at most the 32 examples"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"layerwise": 1}, "`layerwise` must be True or False"),
        ({"exclude": [".*"]}, "no weights that can be pruned"),
        ({"network": keras.Sequential()}, "`build` must be .* not the model itself"),
        ({"network": lambda: None}, "`build` must return a built keras.Model"),
        ({"network": lambda: keras_es.sparsify(build(), 0.5)}, "must be plain"),
        ({"verbose": 2}, "`verbose` must be 1 for a progress bar"),
        ({"validation_data": X}, "`validation_data` must be None, a tuple"),
        ({"validation_data": (X,)}, "validation_data=a tuple of 1"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message) as error:
        find(**change)
    assert "Received: " in str(error.value)


def test_a_callback_that_stops_a_fit_is_an_error():
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    stopped = r"must have 4 steps.*a callback set `stop_training`.*Received: 2 steps"
    with pytest.raises(RunError, match=stopped):
        find("sgd", score="magnitude", callbacks=Stops())  # one, as `fit` takes it


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_that_end_are_an_error():
    def once(seed, first_step):
        return tf.data.Dataset.from_tensor_slices(DATA).batch(16)

    ended = r"must have 4 steps.*came to an end.*Received: 2 steps"
    with pytest.raises(RunError, match=ended):
        find("sgd", score="magnitude", data=once)
    with pytest.raises(ValueError, match="must return a tf.data.Dataset"):
        find("sgd", score="magnitude", data=lambda seed, first_step: None)


def test_lists_of_inputs_are_not_made_one_tensor():
    batches = stream(([X, -X], Y, None), 8, 0, 0)
    (a, b), y = next(iter(batches))
    np.testing.assert_array_equal(a, -b)
    assert y.shape == (8,)


@pytest.mark.slow
def test_several_inputs_in_a_list():
    def network():
        inputs = [keras.Input((6,)), keras.Input((6,))]
        joined = keras.layers.Concatenate()(inputs)
        return keras.Model(inputs, keras.layers.Dense(3, "softmax")(joined))

    data = [X, -X], Y, None
    ticket = find(
        "sgd", score="snip", rounds=1, data=data, network=network, validation_data=data
    )  # fmt: skip
    assert [row["weights"] for row in ticket.history] == [36, 18]
    model = ticket.model()
    line = lottery.connectivity(
        model, model, data, 3, loss="sparse_categorical_crossentropy"
    )
    assert line.barrier == pytest.approx(0.0, abs=1e-6)


def test_masks_that_something_moves_are_an_error():
    class Moves(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            masked = named_weights(self.model)["out/kernel"]
            masked.kernel_mask.assign(np.zeros(masked.shape, bool))

    with pytest.raises(RuntimeError, match="'out/kernel' must have the 15 weights"):
        find(Static("sgd"), score="magnitude", callbacks=[Moves()])
