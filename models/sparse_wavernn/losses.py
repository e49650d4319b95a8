"""The loss of two softmaxes, and what it is in bits."""

import math

import keras
from keras import ops

from models.sparse_wavernn.bits import split


def negative_log_likelihood(samples, logits):
    """Return -ln p(c) - ln p(f | c) of each sample, in nats.

    Args:
        samples: Numbers in [-32768, 32767], [..., T].
        logits: Float tensor [..., T, 2, 256]: of the coarse bits and of the fine ones.
    """
    bits = ops.stack(split(samples), axis=-1)
    # In float32: the log of a sum of 256 numbers is worth nothing in 16 bits.
    found = ops.sparse_categorical_crossentropy(
        bits, ops.cast(logits, "float32"), from_logits=True
    )
    return ops.sum(found, axis=-1)


def bits_per_sample(samples, logits):
    """Return the same in bits: 16 is what knows nothing."""
    return negative_log_likelihood(samples, logits) / math.log(2.0)


@keras.saving.register_keras_serializable(package="keras_es_models")
class DualSoftmax(keras.losses.Loss):
    """-ln p(c) - ln p(f | c) in nats, the mean over samples and examples.

    Targets are samples [batch, T]; predictions are logits [batch, T, 2, 256].
    """

    def __init__(self, reduction="sum_over_batch_size", name="dual_softmax", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return negative_log_likelihood(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_es_models")
class Bits(keras.metrics.MeanMetricWrapper):
    """Bits per sample, coarse and fine together: between 0 and, knowing nothing, 16."""

    def __init__(self, name="bits", dtype=None):
        super().__init__(bits_per_sample, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}
