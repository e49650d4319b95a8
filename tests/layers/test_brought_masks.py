"""Masks that `set_weights` and checkpoints of TensorFlow bring have to fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import layers
from keras_es.optimizers import GradualMagnitude
from keras_es.patterns import NByM, Unstructured


def masked(sparsity, pattern=None, cls=None):
    inputs = keras.Input((5, 8)) if cls else keras.Input((8,))
    layer = cls(4) if cls else keras.layers.Dense(8)
    model = keras.Sequential([inputs, layer])
    return keras_es.sparsify(model, sparsity, pattern=pattern)


def unchanged(model, bring):
    before = model.get_weights()
    with pytest.raises(ValueError, match="Received") as error:
        bring()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    return str(error.value)


def checkpoint(model, folder):
    return tf.train.Checkpoint(model=model).write(str(folder / "checkpoint"))


def restore(model, path):
    tf.train.Checkpoint(model=model).read(path)


@pytest.mark.parametrize("cls", [None, keras.layers.GRU])
@pytest.mark.parametrize("theirs, ours", [(0.75, 0.5), (0.5, 0.75)])
def test_another_sparsity_is_refused_with_both_numbers(theirs, ours, cls, tmp_path):
    other, model = masked(theirs, cls=cls), masked(ours, cls=cls)
    weights, path = other.get_weights(), checkpoint(other, tmp_path)
    layer = model.layers[0]
    for bring in (
        lambda: model.set_weights(weights),
        lambda: layer.set_weights(weights),
        lambda: restore(model, path),
    ):
        text = unchanged(model, bring)
        assert f"sparsity of {theirs}" in text and f"sparsity of {ours}" in text


def test_another_pattern_is_refused_and_a_wider_one_taken(tmp_path):
    other, model = masked(0.5), masked(None, NByM(2, 4))
    path = checkpoint(other, tmp_path)
    assert "none of NByM" in unchanged(
        model, lambda: model.set_weights(other.get_weights())
    )
    assert "under NByM" in unchanged(model, lambda: restore(model, path))
    other.set_weights(model.get_weights())
    restore(other, checkpoint(model, tmp_path))
    np.testing.assert_array_equal(other.get_weights()[3], model.get_weights()[3])


def test_the_same_sparsity_is_taken(tmp_path):
    for cls in (None, keras.layers.GRU):
        other, model = masked(0.5, cls=cls), masked(0.5, cls=cls)
        restore(model, checkpoint(other, tmp_path))
        for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        status = tf.train.Checkpoint(model=model).read(checkpoint(other, tmp_path))
        status.assert_consumed()
        model.set_weights(other.get_weights())


def test_a_denser_mask_is_that_of_a_schedule_or_refused(tmp_path):
    dense = masked(0.5).get_weights()
    model = masked(0.75)
    assert "compiled with it" in unchanged(model, lambda: model.set_weights(dense))
    model.compile(GradualMagnitude("sgd", end_step=9), "mse")
    model.set_weights(dense)
    assert keras_es.sparsity_report(model).sparsity == 0.5
    # The checkpoint says what is asked for in the end.
    other = masked(0.75)
    restore(other, checkpoint(model, tmp_path))
    assert keras_es.sparsity_report(other).sparsity == 0.5


def test_checkpoints_without_the_number_are_restored(tmp_path):
    model, other = masked(0.5), masked(0.5)
    names = {v.name: v for v in other.layers[0].weights}
    path = tf.train.Checkpoint(kernel=names["kernel_mask"]).write(str(tmp_path / "c"))
    tf.train.Checkpoint(kernel=model.layers[0].masked_weights[0].kernel_mask).restore(
        path
    )
    np.testing.assert_array_equal(
        model.layers[0].masked_weights[0].kernel_mask, names["kernel_mask"]
    )


def test_block_sparse_layers(tmp_path):
    made = []
    for sparsity in (0.5, 0.75):
        layer = layers.BlockSparseDense(8, sparsity=sparsity, block_size=2)
        made.append(keras.Sequential([keras.Input((8,)), layer]))
    other, model = made
    text = unchanged(model, lambda: model.layers[0].set_weights(other.get_weights()))
    assert "2 blocks of 2 x 2" in text and "1 blocks" in text
    text = unchanged(model, lambda: restore(model, checkpoint(other, tmp_path)))
    assert "sparsity of 0.5" in text and "sparsity of 0.75" in text


def test_what_is_stripped_or_exported_has_no_number(tmp_path):
    model = masked(0.5, Unstructured())
    keras_es.strip_masks(model).export(tmp_path / "stripped", verbose=False)
    model.export(tmp_path / "masked", verbose=False)
    for name in ("stripped", "masked"):
        served = tf.saved_model.load(str(tmp_path / name))
        np.testing.assert_allclose(
            served.serve(np.ones((1, 8), "float32")),
            model(np.ones((1, 8), "float32")),
            1e-6,
        )
    plain = keras_es.strip_masks(model)
    twin = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
    status = tf.train.Checkpoint(model=twin).read(checkpoint(plain, tmp_path))
    status.assert_consumed()
