"""Files that were saved before options became objects still give all that they hold.

Each is a model of one masked layer of eight units, trained for two steps; beside it
lie the outputs, masks and the optimizer's state that it was saved with.
"""

import pathlib

import keras
import numpy as np
import pytest

import keras_es

DATA = pathlib.Path(__file__).parent.parent / "data"
X = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")


@pytest.mark.parametrize("name", ["old_snes", "old_open_es"])
def test_old_file_gives_model_weights_masks_and_state(name):
    model = keras.models.load_model(DATA / f"{name}.keras")
    saved = np.load(DATA / f"{name}.npz")
    np.testing.assert_allclose(
        model.predict(X, verbose=0), saved["outputs"], rtol=1e-5, atol=1e-6
    )
    for i, masked in enumerate(keras_es.masked_weights(model)):
        np.testing.assert_array_equal(masked.kernel_mask.numpy(), saved[f"mask{i}"])
    state = [np.ravel(v.numpy()) for v in model.optimizer.variables]
    np.testing.assert_allclose(np.concatenate(state), saved["optimizer"], rtol=1e-6)


def test_old_options_are_translated():
    optimizer = keras.models.load_model(DATA / "old_open_es.keras").optimizer
    assert optimizer.noise == keras_es.noise.LowRank(1)
    assert optimizer.batch_mode == keras_es.optimizers.Sampled(4)
