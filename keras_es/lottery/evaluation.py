"""Losses and metrics of plain copies of models, at any values of their weights."""

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.conversion.models import check_model
from keras_es.conversion.strip import strip_masks
from keras_es.layers import tree
from keras_es.lottery.data import arrays
from keras_es.lottery.masking import set_values


def local(variable):
    """Return the copy of a variable that gradients outside of replicas are of.

    Under `MirroredStrategy` it is that of the first replica, which is read there.
    """
    strategy = tf.distribute.get_strategy()
    return strategy.experimental_local_results(variable.value)[0]


def mean_loss(model, x, y, sample_weight):
    """Return the loss of a batch, as it is outside of replicas, without dropout."""
    y_pred = _compat.forward(model, x, training=False)
    loss = _compat.compute_loss(model, x, y, y_pred, sample_weight)
    # Keras divides it by the replicas of the scope that this is in.
    return _compat.unscale_loss_for_distribution(loss)


class Evaluator:
    """A plain copy of a model, compiled, whose weights are set and evaluated.

    Args:
        model: Built model, masked or not.
        data: Tuple of arrays or `ImageDataset` (see `find`).
        loss: See `keras.Model.compile`; None for that of the model.
        metrics: See `keras.Model.compile`.
        batch_size: Examples at once.

    Raises:
        ValueError: If the model is none, or there is no loss.
    """

    def __init__(self, model, data, loss, metrics, batch_size):
        check_model(model)
        loss_weights = None
        if loss is None and getattr(model, "compiled", False):
            # Not of the config, where an object is a dict.
            loss, loss_weights = model.loss, _compat.loss_weights(model)
        if loss is None:
            raise ValueError(
                "`loss` must be given for a model that was not compiled with one. "
                "Received: loss=None"
            )
        data = arrays(data)
        self.model = strip_masks(model)
        metrics = list(metrics) if isinstance(metrics, tuple) else metrics
        self.model.compile(
            "sgd", loss, loss_weights=loss_weights, metrics=metrics or None
        )
        # Once and for all: to make it took most of the time of an evaluation.
        self.batches = tf.data.Dataset.from_tensor_slices(data).batch(batch_size)
        self.norms = [
            layer
            for _, layer in tree.walk(self.model)
            if isinstance(layer, keras.layers.BatchNormalization)
        ]

    def evaluate(self, values):
        """Return the logs with these weights; statistics are those of the data."""
        set_values(self.model, values)
        if self.norms:
            self._recompute_statistics()
        return self.model.evaluate(self.batches, verbose=0, return_dict=True)

    def _recompute_statistics(self):
        """Set the moving statistics to the mean of those of the data's batches."""
        momenta = [norm.momentum for norm in self.norms]
        try:
            for i, (x, *_) in enumerate(self.batches):
                for norm in self.norms:  # The mean so far, whatever it was before.
                    norm.momentum = i / (i + 1)
                _compat.forward(self.model, x, training=True)
        finally:
            for norm, momentum in zip(self.norms, momenta):
                norm.momentum = momentum
