"""After every step each weight has exactly as many non-zeros as it was given."""

import keras
import numpy as np
import pytest

import keras_es
from keras_es import optimizers, patterns
from tests.reference import problems

WEIGHTS = {
    "a": (patterns.Unstructured(), 0.7),
    "b": (patterns.Block(4, 2), 0.5),
    "c": (patterns.NByM(1, 4), 0.75),
    "d": (patterns.Channel(), 0.25),
}


class CountNonZeros(keras.callbacks.Callback):
    """Collects the numbers of non-zeros of all masked weights after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        row = []
        for masked in keras_es.masked_weights(self.model):
            mask = masked.kernel_mask.numpy()
            effective = keras.ops.convert_to_numpy(masked.effective_value())
            np.testing.assert_array_equal(effective != 0, mask)
            decoded = masked.expand(masked.decode(masked.mask_scores.value))
            np.testing.assert_array_equal(decoded, mask)
            row.append(int(mask.sum()))
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


@pytest.mark.parametrize("name", sorted(optimizers.OPTIMIZERS))
def test_number_of_nonzeros_is_exact(name):
    # Large steps, so that masks do move.
    large = {"score_optimizer": keras.optimizers.Adam(0.5)}
    kwargs = {} if name in ("snes", "static") else large
    model = problems.compiled(problems.make(name, **kwargs), make_model(), loss="mse")
    counter = CountNonZeros()
    history = problems.fit(model, epochs=2, callbacks=[counter]).history
    expected = [round(96 * 0.3), 32, 16, 48]
    assert [m.nnz for m in keras_es.masked_weights(model)] == expected
    assert counter.seen == [expected] * 4
    np.testing.assert_allclose(
        history["sparsity"], 1 - sum(expected) / (96 + 3 * 64), rtol=1e-6
    )
    assert (sum(history["mask_flip_ratio"]) > 0) == (name != "static")
