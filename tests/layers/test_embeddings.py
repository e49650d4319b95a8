"""Tables masked by rows: lookups, ties, gradients, and all methods that move masks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import layers, optimizers
from keras_es.layers.embedding import REVERSIBLE
from keras_es.patterns import Channel, Rows, Unstructured

WORDS = np.array([[1, 2, 3, 0], [7, 2, 5, 4]])
reversible = pytest.mark.skipif(not REVERSIBLE, reason="this Keras has none")


class Tied(keras.layers.Layer):
    """Reads the words, and says the next by the same table."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = keras.layers.ReversibleEmbedding(8, 4, name="table")

    def build(self, input_shape):
        self.table.build(input_shape)

    def call(self, words):
        return self.table(keras.ops.tanh(self.table(words)), reverse=True)


def text_model():
    words = keras.Input((4,), dtype="int32")
    hidden = keras.layers.Embedding(8, 6, mask_zero=True, name="words")(words)
    hidden = keras.layers.Dense(5, name="dense")(hidden)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(words, keras.layers.Dense(1, name="out")(hidden))


def test_tables_are_masked_by_rows_if_asked():
    model = text_model()
    left = keras_es.masked_weights(keras_es.sparsify(model, 0.5))
    assert [m.layer.name for m in left] == ["dense", "out"]
    sparse = keras_es.sparsify(model, 0.75, include_embeddings=True)
    table, *others = keras_es.masked_weights(sparse)
    assert table.attribute == "embeddings" and table.pattern == Rows()
    assert all(m.pattern == Unstructured() for m in others)
    kept = np.asarray(table.effective_value()).any(axis=1)
    assert kept.sum() == 2 and table.deployed_nnz() == table.nnz == 12
    plain = keras_es.strip_masks(sparse)
    assert type(plain.get_layer("words")) is keras.layers.Embedding
    np.testing.assert_array_equal(plain(WORDS), sparse(WORDS))
    # Masks stay as they are, unless they are asked for again.
    again = keras_es.sparsify(sparse, 0.5)
    assert keras_es.masked_weights(again)[0].nnz == 12
    again = keras_es.sparsify(sparse, 0.5, include_embeddings=True)
    assert keras_es.masked_weights(again)[0].nnz == 24
    mixed = keras_es.sparsify(
        model,
        allocation={"words": 0.5},
        pattern={"words": Channel()},
        include_embeddings=True,
        initial_mask="magnitude",
    )
    (table,) = keras_es.masked_weights(mixed)
    assert table.pattern == Channel() and table.nnz == 24


def test_a_lookup_has_the_gradient_of_some_rows():
    layer = layers.MaskedEmbedding(8, 4, sparsity=0.5, mask_zero=True, mask_seed=1)
    found = layer(WORDS)
    np.testing.assert_array_equal(found._keras_mask, WORDS != 0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(layer(WORDS)))
    gradient = tape.gradient(loss, layer.trainable_variables[0].value)
    assert isinstance(gradient, tf.IndexedSlices)


def test_given_weights_are_masked():
    table = np.arange(1.0, 9.0)[:, None] * np.ones((8, 2))
    layer = layers.MaskedEmbedding(8, 2, weights=table, sparsity=0.5, mask_seed=1)
    mask = layer.masked_weights[0].kernel_mask.numpy()
    np.testing.assert_array_equal(layer(np.arange(8)), table * mask)


@reversible
@pytest.mark.parametrize("tied", [True, False])
def test_both_ways_read_the_masked_table(tied):
    layer = layers.MaskedReversibleEmbedding(
        8, 4, tie_weights=tied, mask_zero=True, sparsity=0.5, mask_seed=1
    )
    rows = layer(WORDS)
    np.testing.assert_array_equal(rows._keras_mask, WORDS != 0)
    logits = np.asarray(layer(rows, reverse=True))
    kept = layer.masked_weights[0].kernel_mask.numpy().any(axis=1)
    assert ((logits == 0).all(axis=(0, 1)) == (~kept if tied else False)).all()


@reversible
@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_every_method_moves_a_tied_table(name, tmp_path):
    words = keras.Input((4,), dtype="int32")
    model = keras.Model(words, Tied(name="tied")(words))
    sparse = keras_es.sparsify(model, 0.5, include_embeddings=True)
    (table,) = keras_es.masked_weights(sparse)
    rule = optimizers.for_run(name, "adam", sparse, 4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sparse.compile(rule, loss, run_eagerly=True)
    before = table.kernel.numpy()
    sparse.fit(np.tile(WORDS, (4, 1)), np.tile(WORDS, (4, 1)), batch_size=2, verbose=0)
    assert (table.kernel.numpy() != before).any()
    rows = table.kernel_mask.numpy()
    assert rows.sum() == table.nnz == 16 and (rows.all(1) == rows.any(1)).all()
    plain = keras_es.strip_masks(sparse)
    assert type(plain.get_layer("tied").table) is keras.layers.ReversibleEmbedding
    np.testing.assert_array_equal(plain(WORDS), sparse(WORDS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: keras_es.sparsify(text_model(), 0.5, include_embeddings="yes"),
            "must be True or False. Received: include_embeddings='yes'",
        ),
        (
            lambda: keras_es.sparsify(
                keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
                0.5,
                include_embeddings=True,
            ),
            "no embedding that can be masked.*Received: include_embeddings=True",
        ),
        (
            lambda: keras_es.sparsify(text_model(), 0.5, exclude=["words"]),
            "`exclude` names no layer.*include_embeddings=True.*'words'",
        ),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
