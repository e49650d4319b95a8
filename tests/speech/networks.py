"""Small networks and recordings that the tests of speech share."""

import keras
import numpy as np

import keras_es
from keras_es.patterns import Block
from models.sparse_wavernn import CONTEXT, DENSE_LAYERS, SparseWaveRNN

HOP, MELS, UNITS = 6, 5, 16
SIZES = {"units": UNITS, "hop": HOP, "mels": MELS, "channels": 7, "output_units": 8}


def network(seed=0, **changes):
    """Return a dense `SparseWaveRNN` of some thousand weights, biases among them."""
    keras.utils.set_random_seed(seed)
    model = SparseWaveRNN(**SIZES | changes)
    for variable in model.trainable_variables:
        if variable.path.endswith("bias"):
            variable.assign(keras.random.normal(variable.shape, stddev=0.3))
    return model


def masked(model=None, sparsity=0.5, **options):
    """Return it with blocks of 4 x 1 masked."""
    options = {"pattern": Block(4, 1), "exclude": list(DENSE_LAYERS)} | options
    return keras_es.sparsify(network() if model is None else model, sparsity, **options)


def recordings(count=2, frames=4, seed=0):
    """Return a batch of noise, as `SparseWaveRNN` takes it."""
    rng = np.random.default_rng(seed)
    return {
        "samples": rng.integers(-32768, 32768, (count, frames * HOP)).astype("int32"),
        "mel": rng.normal(-5.0, 3.0, (count, frames + 2 * CONTEXT, MELS)).astype(
            "float32"
        ),
    }
