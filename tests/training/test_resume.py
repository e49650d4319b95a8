"""Training that was saved and loaded goes on as if it had not been interrupted."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es.optimizers import OPTIMIZERS, SNES
from tests.marks import slow_unless
from tests.reference.problems import SCHEDULES
from tests.training.common import compiled, data, sparse_mlp


def stateful_mlp():
    """All kinds of state: moving statistics, dropout's seeds, slots, masks."""
    return sparse_mlp(
        keras.layers.BatchNormalization(), keras.layers.Dropout(0.2, seed=5)
    )


def batches():
    # The order of the data is the data's own state; here it has none.
    return tf.data.Dataset.from_tensor_slices(data()).batch(8)


def train(model, epochs, initial_epoch=0, callbacks=()):
    model.fit(
        batches(),
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )


def everything(model):
    optimizer = {f"optimizer/{v.path}": v.numpy() for v in model.optimizer.variables}
    weights = {v.path: v.numpy() for v in model.weights}
    seeds = {v.path: v.numpy() for v in model.non_trainable_variables}
    return {**weights, **seeds, **optimizer}


def assert_equal_to_the_bit(got, want):
    got = everything(got)
    want = want if isinstance(want, dict) else everything(want)
    assert len(got) == len(want)
    for (key, a), b in zip(want.items(), got.values(), strict=True):
        assert a.dtype == b.dtype, key
        np.testing.assert_array_equal(b, a, err_msg=key)


def assert_close(got, want):
    got, want = everything(got), everything(want)
    for (key, a), b in zip(want.items(), got.values(), strict=True):
        np.testing.assert_allclose(b, a, 1e-4, 1e-5, err_msg=key)


def make(method, jit_compile=False, **more):
    keras.utils.set_random_seed(0)
    inner = keras.optimizers.AdamW(0.01, weight_decay=0.1, clipnorm=1.0, **more)
    optimizer = OPTIMIZERS[method](inner, seed=3, **SCHEDULES.get(method, {}))
    model = compiled(stateful_mlp(), optimizer, jit_compile, metrics=["accuracy"])
    return model


# In the fast tests one of each kind of state, and under XLA one that has guidance and
# moves masks.
KINDS = ("guided_es", "open_es", "snes", "forward_gradient", "gradual_magnitude")
KEPT = [*((method, False) for method in KINDS), ("rigl", True)]
IN_CI = [("guided_es", True), ("snes", True)]
BOTH = [*itertools.product(OPTIMIZERS, [False, True])]
REST = [case for case in BOTH if case[1] and case not in KEPT + IN_CI]


@pytest.mark.parametrize("method, jit_compile", slow_unless(KEPT, BOTH, REST))
def test_save_and_load_in_the_middle(method, jit_compile, tmp_path):
    # With averages, which also take the weights' places where a `fit` ends.
    whole = make(method, jit_compile, use_ema=True)
    traces, step = [], whole.train_step
    whole.train_step = lambda batch: traces.append(batch) or step(batch)
    train(whole, 1)
    whole.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(whole.optimizer)
    assert loaded.optimizer.get_config() == whole.optimizer.get_config()
    assert_equal_to_the_bit(loaded, whole)
    train(whole, 2, initial_epoch=1)
    train(loaded, 2, initial_epoch=1)
    assert_equal_to_the_bit(loaded, whole)
    assert int(loaded.optimizer.steps_done()) == 8
    whole.optimizer.learning_rate = 0.5
    train(whole, 3, initial_epoch=2)
    assert len(traces) == 1, "a train step is traced once, however many steps there are"


@pytest.fixture(scope="module")
def undisturbed():
    """Return all state of one training after no epoch, the first, second and third."""
    model = make("snes")
    found = [None]
    for epoch in range(3):
        train(model, epoch + 1, initial_epoch=epoch)
        found.append(everything(model))
    return found


def test_steps_per_execution_take_the_same_steps():
    models = []
    for steps in (1, 3):
        keras.utils.set_random_seed(0)
        models.append(compiled(stateful_mlp(), steps_per_execution=steps))
        train(models[-1], 2)
    assert_close(*models)


def test_eager_steps_are_those_of_the_graph():
    models = []
    for eagerly in (False, True):
        keras.utils.set_random_seed(0)
        models.append(compiled(stateful_mlp(), run_eagerly=eagerly))
        train(models[-1], 1)
    assert_close(*models)


def test_whole_state_in_a_weights_file(tmp_path):
    # `save_weights` holds no optimizer; what it has is exact.
    model = make("snes")
    train(model, 1)
    model.save_weights(tmp_path / "model.weights.h5")
    keras.utils.set_random_seed(7)
    other = stateful_mlp()
    other.load_weights(tmp_path / "model.weights.h5")
    for want, got in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=want.path)
    x, _ = data()
    np.testing.assert_array_equal(
        other.predict(x, verbose=0), model.predict(x, verbose=0)
    )


class Stop(Exception):
    pass


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Stop


def test_backup_and_restore(undisturbed, tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    interrupted = make("snes")
    with pytest.raises(Stop):
        train(interrupted, 3, callbacks=[backup(), Interrupt(1, 2)])
    resumed = make("snes")
    train(resumed, 3, callbacks=[backup()])
    assert_equal_to_the_bit(resumed, undisturbed[3])


def test_model_checkpoint_and_epochs_in_one_fit(undisturbed, tmp_path):
    model = make("snes")
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.keras", monitor="loss", mode="min"
    )
    train(model, 2, callbacks=[checkpoint])
    assert_equal_to_the_bit(model, undisturbed[2])
    loaded = keras.saving.load_model(tmp_path / "1.keras")
    train(loaded, 2, initial_epoch=1)
    assert_equal_to_the_bit(loaded, model)


def test_checkpoint_of_weights_in_the_middle_of_an_epoch(tmp_path):
    # The deployed mask in the file is the one of the scores beside it.
    model = make("snes")
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "last.weights.h5", save_weights_only=True, save_freq=3
    )
    train(model, 1, callbacks=[checkpoint])
    other = stateful_mlp()
    other.load_weights(tmp_path / "last.weights.h5")
    for layer in (other.layers[0], other.layers[-1]):
        (masked,) = layer.masked_weights
        decoded = masked.expand(masked.decode(masked.mask_scores.value))
        np.testing.assert_array_equal(masked.kernel_mask, decoded)


def test_tf_checkpoint(tmp_path):
    # Without dropout: Keras keeps its seeds out of TensorFlow's checkpoints.
    def make_model():
        return compiled(sparse_mlp(keras.layers.BatchNormalization()), SNES("adam", 4))

    model = make_model()
    train(model, 1)
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=model, optimizer=model.optimizer), tmp_path, 1
    )
    manager.save()
    other = make_model()
    other.optimizer.build(other.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=other, optimizer=other.optimizer)
    checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    assert_equal_to_the_bit(other, model)
    train(model, 2, initial_epoch=1)
    train(other, 2, initial_epoch=1)
    assert_equal_to_the_bit(other, model)


def test_schedules_go_on(tmp_path):
    decay = keras.optimizers.schedules.ExponentialDecay
    optimizer = SNES(
        keras.optimizers.SGD(decay(0.1, 3, 0.5)), mean_learning_rate=decay(1.0, 3, 0.5)
    )
    whole = compiled(stateful_mlp(), optimizer)
    train(whole, 1)
    whole.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    train(whole, 2, initial_epoch=1)
    train(loaded, 2, initial_epoch=1)
    assert_equal_to_the_bit(loaded, whole)


def test_evaluation_between_epochs_leaves_no_trace(undisturbed):
    model = make("snes")
    train(model, 1)
    assert_equal_to_the_bit(model, undisturbed[1])
    model.evaluate(batches(), verbose=0)
    model.predict(data()[0], verbose=0)
    train(model, 2, initial_epoch=1)
    assert_equal_to_the_bit(model, undisturbed[2])


def test_a_compiled_model_that_was_never_trained(undisturbed, tmp_path):
    make("snes").save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    train(loaded, 1)
    assert_equal_to_the_bit(loaded, undisturbed[1])
