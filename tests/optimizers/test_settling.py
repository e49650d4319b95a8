"""A sparsity schedule that has ended leaves exact masks, whatever put others there."""

import warnings

import keras
import numpy as np
import pytest

import keras_es
from keras_es import schedules
from keras_es.optimizers import Falling, GradualMagnitude, OpenES, Turns
from tests.reference import problems

STEPS = 6  # of three epochs


def falling(steps=None, end_step=3):
    turns = None if steps is None else Turns(members=4, steps=steps)
    density = Falling(schedules.PolynomialSparsity(end_step))
    return OpenES("sgd", 4, turns=turns, density=density)


def nonzeros(model):
    (masked,) = keras_es.masked_weights(model)
    return int(masked.kernel_mask.numpy().sum())


def stopping(epoch):
    """Return callbacks that let `fit` end with the weights of an epoch."""

    def judge(number, logs):
        logs["worse"] = abs(number - epoch)

    score = keras.callbacks.LambdaCallback(on_epoch_end=judge)
    stop = keras.callbacks.EarlyStopping(
        "worse", mode="min", restore_best_weights=True, patience=9
    )
    return [score, stop]


def fit(model, epochs=3, **kwargs):
    """Train, and return what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = problems.fit(model, epochs=epochs, **kwargs).history
    texts = [str(w.message) for w in caught if "non-zeros" in str(w.message)]
    return texts, history


@pytest.mark.parametrize(
    "make",
    [lambda: GradualMagnitude("sgd", end_step=3), lambda: falling(1)],
    ids=["gradual_magnitude", "open_es"],
)
def test_a_restored_epoch_is_pruned(make, tmp_path):
    model = problems.compiled(make())
    (masked,) = keras_es.masked_weights(model)
    texts, history = fit(model, callbacks=stopping(epoch=0))
    assert nonzeros(model) == masked.nnz
    assert history["sparsity"][0] < history["sparsity"][-1] == 0.5
    (text,) = texts
    assert f"for the {masked.nnz} that were" in text and "start_from_epoch" in text
    model.save(tmp_path / "model.keras")
    assert nonzeros(keras.saving.load_model(tmp_path / "model.keras")) == masked.nnz
    # Among the epochs after the schedule's end nothing has to be pruned.
    assert fit(model, callbacks=stopping(epoch=1))[0] == []
    assert nonzeros(model) == masked.nnz


def test_what_is_pruned_is_what_the_method_likes_least():
    model = problems.compiled(GradualMagnitude("sgd", end_step=3))
    fit(model, callbacks=stopping(epoch=0))
    (masked,) = keras_es.masked_weights(model)
    size, mask = np.abs(masked.kernel.numpy()), masked.kernel_mask.numpy()
    assert size[mask].min() >= size[~mask].max()


def test_a_run_that_ends_within_a_generation_is_as_sparse_as_asked():
    model = problems.compiled(falling(steps=100))
    texts, history = fit(model)
    (masked,) = keras_es.masked_weights(model)
    assert history["sparsity"] == [0.0] * 3 and nonzeros(model) == masked.nnz
    assert "a generation, which takes 100 steps" in texts[0]
    texts, history = fit(model, epochs=1)
    assert (
        texts == [] and history["sparsity"] == [0.5] and nonzeros(model) == masked.nnz
    )


def test_weights_that_are_denser_than_an_unfinished_schedule_are_told_of():
    model = problems.compiled(falling(1, end_step=STEPS))
    texts, _ = fit(model, epochs=2, callbacks=stopping(epoch=0))
    assert "more than the sparsity schedule had reached" in texts[0]
    assert fit(model, epochs=1)[0] == []
    assert nonzeros(model) == keras_es.masked_weights(model)[0].nnz


@pytest.mark.parametrize("way", ["set_weights", "load_weights"])
def test_weights_of_a_dense_epoch_outside_of_fit(way, tmp_path):
    model, path = problems.compiled(falling(1)), tmp_path / "dense.weights.h5"
    model.optimizer.build(model.trainable_variables)
    dense, optimizer = model.get_weights(), model.optimizer
    model.optimizer = None  # a file of weights alone
    model.save_weights(path)
    model.optimizer = optimizer
    assert fit(model)[0] == []
    given = dense if way == "set_weights" else path
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(model, way)(given)
    assert any("has ended, and masks had" in str(w.message) for w in caught)
    assert nonzeros(model) == keras_es.masked_weights(model)[0].nnz


def test_a_run_that_was_backed_up_goes_on_without_a_word(tmp_path):
    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise InterruptedError

    def backed_up():
        return keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)

    model = problems.compiled(falling(1, end_step=STEPS - 1))
    with pytest.raises(InterruptedError):
        fit(model, callbacks=[backed_up(), Killed()])
    again = problems.compiled(falling(1, end_step=STEPS - 1))
    texts, history = fit(again, callbacks=[backed_up()])
    assert texts == [] and len(history["loss"]) == 2
    assert nonzeros(again) == keras_es.masked_weights(again)[0].nnz


def test_averages_that_are_swapped_in_leave_masks_alone():
    inner = keras.optimizers.SGD(0.1, use_ema=True)
    model = problems.compiled(GradualMagnitude(inner, end_step=3))
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    assert fit(model, callbacks=[swap])[0] == []
    assert nonzeros(model) == keras_es.masked_weights(model)[0].nnz
