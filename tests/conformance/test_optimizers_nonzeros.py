"""After every step each weight has exactly as many non-zeros as it was given.

And the weights of a group have one mask.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_es
from keras_es import optimizers, patterns
from tests.marks import slow_unless
from tests.reference import problems

WEIGHTS = {
    "a": (patterns.Unstructured(), 0.7),
    "e": (patterns.Channel(group="of two"), 0.25),
    "f": (patterns.Channel(group="of two"), 0.25),
    "b": (patterns.Block(4, 2), 0.5),
    "c": (patterns.NByM(1, 4), 0.75),
    "d": (patterns.Channel(), 0.25),
}


class CountNonZeros(keras.callbacks.Callback):
    """Collects the numbers of non-zeros of all masked weights after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    @tf.function(autograph=False)
    def decoded(self, index, scores):
        masked = keras_es.masked_weights(self.model)[index]
        return masked.expand(masked.decode(scores))

    def on_train_batch_end(self, batch, logs=None):
        row, masks = [], []
        for masked in keras_es.masked_weights(self.model):
            mask = masked.kernel_mask.numpy()
            effective = keras.ops.convert_to_numpy(masked.effective_value())
            if self.model.optimizer.grows_from_zero:
                mask_or_new = mask & (masked.kernel.numpy() != 0)
                np.testing.assert_array_equal(effective != 0, mask_or_new)
            else:
                np.testing.assert_array_equal(effective != 0, mask)
            row.append(int(mask.sum()))
            masks.append(mask)
            if row[-1] == masked.nnz:
                decoded = self.decoded(len(row) - 1, masked.mask_scores.value)
                np.testing.assert_array_equal(decoded, mask)
        np.testing.assert_array_equal(masks[1], masks[2])  # Those of a group.
        self.seen.append(row)


def make_model():
    keras.utils.set_random_seed(0)
    dense = keras_es.layers.MaskedDense
    layers = [
        dense(8, activation="tanh", sparsity=sparsity, pattern=pattern, name=name)
        for name, (pattern, sparsity) in WEIGHTS.items()
    ]
    inputs = keras.Input((problems.INPUTS,))
    return keras_es.ESSequential([inputs, *layers, keras.layers.Dense(1)])


def expected_counts(name):
    """Non-zeros of each weight after each of four steps."""
    last = [round(96 * 0.3), 48, 48, 32, 16, 48]
    if name != "gradual_magnitude":
        return [last] * 4
    # (1 - t/3)**3 of the way is left; units of 1, 8, 16 (one a group) and 8 weights.
    units = [(1, 29, 96), *[(8, 6, 8)] * 2, (8, 4, 8), (16, 1, 4), (8, 6, 8)]
    left = [(2 / 3) ** 3, (1 / 3) ** 3, 0.0, 0.0]
    return [
        [size * round(k + (dense - k) * share) for size, k, dense in units]
        for share in left
    ]


NAMES = sorted(optimizers.OPTIMIZERS)
ALL = [(name, dtype) for name in NAMES for dtype in ("float32", "float64")]
# Counts do not ask for the dtype, but each method has arithmetic of its own.
KEPT = [(name, "float64") for name in NAMES] + [("guided_nes", "float32")]
REST = [case for case in ALL if case not in KEPT]


@pytest.mark.parametrize("name, dtype", slow_unless(KEPT, ALL, REST))
def test_number_of_nonzeros_is_exact(name, dtype):
    keras.config.set_dtype_policy(dtype)
    # Large steps, so that masks do move.
    large = {"score_optimizer": keras.optimizers.Adam(0.5)}
    kwargs = {} if name == "snes" else large
    optimizer = problems.make(name, keras.optimizers.Adam(0.05), **kwargs)
    model = problems.compiled(optimizer, make_model(), loss="mse")
    counter = CountNonZeros()
    history = problems.fit(model, epochs=2, callbacks=[counter]).history
    expected = [round(96 * 0.3), 48, 48, 32, 16, 48]
    assert [m.nnz for m in keras_es.masked_weights(model)] == expected
    assert counter.seen == expected_counts(name)
    zeros = [1 - sum(row) / (96 + 5 * 64) for row in counter.seen]
    np.testing.assert_allclose(history["sparsity"], zeros[1::2], rtol=1e-6)
    assert (sum(history["mask_flip_ratio"]) > 0) == (name not in problems.STILL)
    for masked in keras_es.masked_weights(model):
        assert masked.mask_scores.dtype == "float32"
        assert masked.kernel.dtype == dtype
        assert (dtype == "float64") == problems.keeps_all_digits(masked.kernel)
        assert all(s.dtype == dtype for s in optimizer.inner.slots[id(masked.kernel)])
