"""The optimizer of the weights, as an optimizer of masks uses it, or none.

`Inner` stands for a Keras optimizer that trains the weights by their gradients,
`NoInner` for weights that are evolved. What differs between them is said here, so that
nobody else has to ask.
"""

import keras

from keras_es import _compat
from keras_es.optimizers.guarded import guarded_apply
from keras_es.populations.by_gradients import Population
from keras_es.populations.by_tangents import TangentPopulation


class Inner:
    """The Keras optimizer of the weights.

    Args:
        owner: The `MaskOptimizer`, whose `inner_optimizer` it is.
    """

    def __init__(self, owner):
        self.owner = owner
        self.slots, self.slot_starts = {}, {}

    @property
    def holder(self):
        """What has the Keras optimizer: the owner, or a rule of gradients it was given.

        A strategy of masks may be given a `DirectionalDerivative`, which then says how
        gradients are found and whose own optimizer takes the steps.
        """
        return self.owner if self._given_rule is None else self._given_rule

    @property
    def _given_rule(self):
        given = self.owner.inner_optimizer
        return given if hasattr(given, "derivative") else None

    @property
    def rule(self):
        """The `DirectionalDerivative` that finds gradients; None: backpropagation."""
        return self.holder if hasattr(self.holder, "derivative") else None

    @property
    def optimizer(self):
        """The Keras optimizer, with loss scaling around it if there is."""
        return self.holder.inner_optimizer

    def population(self, model, *batch):
        """Return what evaluates members and the gradients of the weights."""
        if self.rule is None:
            return Population(model, *batch)
        return TangentPopulation(self.rule, model, *batch)

    @property
    def variables(self):
        """Variables of the optimizer."""
        return self.optimizer.variables

    @property
    def iterations(self):
        """Steps so far."""
        return self.optimizer.iterations

    @property
    def learning_rate(self):
        """Learning rate of the weights."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.optimizer.learning_rate = value

    @property
    def scales_loss(self):
        """Whether the loss is scaled, as float16 needs."""
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    def scale_inner_loss(self):
        """Put loss scaling around the optimizer, once (mixed_float16)."""
        if not self.scales_loss:
            scaled = keras.optimizers.LossScaleOptimizer(self.optimizer)
            self.holder.inner_optimizer = scaled

    def scale_loss(self, loss):
        """Scale the loss as the optimizer wants it (float16)."""
        return self.optimizer.scale_loss(loss)

    def finalize(self, variables):
        """Let the optimizer overwrite weights by their moving average (EMA)."""
        self.optimizer.finalize_variable_values(variables)

    def build(self, variables):
        """Create the optimizer's slots for the weights."""
        self.slots, self.slot_starts = _compat.record_slots(self.optimizer, variables)

    def update(self, gradients, variables, active, ok):
        """Let the optimizer act where it may (see `MaskOptimizer.update_weights`)."""
        allowed, shares = self.owner.latents.allowed(active, ok)
        guarded_apply(self.optimizer, gradients, variables, allowed, ok, shares)


class NoInner:
    """No optimizer of the weights: losses alone move them, and nothing is scaled.

    Args:
        owner: The `EvolutionStrategy`. Its `mean_optimizer`, if it has one, moves the
            weights by a search gradient.
    """

    scales_loss = False

    def __init__(self, owner):
        self.owner = owner
        self.slots, self.slot_starts, self.variables = {}, {}, []

    @property
    def optimizer(self):
        """The Keras optimizer of the mean, or None."""
        return getattr(self.owner, "mean_optimizer", None)

    @property
    def iterations(self):
        """Generations so far, a variable once the optimizer is built."""
        return self.owner.generation

    @property
    def learning_rate(self):
        """Learning rate of the mean; 1 if a method has none."""
        return 1.0 if self.optimizer is None else self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        if self.optimizer is None:
            raise AttributeError(
                f"{type(self.owner).__name__} with inner_optimizer=None has no "
                "`learning_rate` that can be set while it trains; give schedules to "
                f"its arguments. Received: learning_rate={value!r}"
            )
        self.optimizer.learning_rate = value

    def scale_inner_loss(self):
        """Do nothing: losses alone need no scaling."""

    def scale_loss(self, loss):
        """Return the loss as it is."""
        return loss

    def finalize(self, variables):
        """Let the optimizer of the mean overwrite weights by their average (EMA)."""
        if self.optimizer is not None:
            space = self.owner.search.space
            self.optimizer.finalize_variable_values(space.means)
            if self.optimizer.use_ema:
                space.write_weights()

    def build(self, variables):
        """Do nothing: the search has its own state."""

    def update(self, gradients, variables, active, ok):
        """Do nothing: there are no gradients."""
