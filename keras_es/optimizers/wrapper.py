"""What an optimizer of masks passes on to the optimizer of the weights."""

import keras

from keras_es.optimizers import arguments


class OptimizerWrapper(keras.optimizers.Optimizer):
    """Base of optimizers that leave the weights to their `inner_optimizer`."""

    @property
    def variables(self):
        """Own variables, then those of the inner optimizer."""
        return self._variables + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        """Learning rate of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.inner_optimizer.learning_rate = value

    @property
    def iterations(self):
        """Steps of the inner optimizer."""
        return self.inner_optimizer.iterations

    def scale_inner_loss(self):
        """Put loss scaling around the inner optimizer, once (mixed_float16)."""
        if not self.scales_loss:
            self.inner_optimizer = keras.optimizers.LossScaleOptimizer(
                self.inner_optimizer
            )

    @property
    def scales_loss(self):
        """Whether the loss is scaled, as float16 needs."""
        return isinstance(self.inner_optimizer, keras.optimizers.LossScaleOptimizer)

    def scale_loss(self, loss):
        """Scale the loss as the inner optimizer wants it (float16)."""
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Let the inner optimizer overwrite weights by their moving average (EMA)."""
        self.inner_optimizer.finalize_variable_values(var_list)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the optimizer from `get_config()`."""
        with keras.saving.custom_object_scope(custom_objects or {}):
            return cls(**arguments.translated(cls, config))
