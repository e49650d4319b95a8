"""One member: the model called with the weights that the member sees."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.layers.masked_weight import effective_weights
from keras_es.populations.evaluation import mean_fitness, total_loss
from keras_es.populations.examples import batch_size
from keras_es.populations.model_state import is_seed


@dataclasses.dataclass
class Said:
    """What a model says of a batch under some weights.

    Attributes:
        loss: Scalar, the model's loss.
        fitness: Scalar, lower is better.
        scaled: The loss as the optimizer of the weights wants it differentiated.
        y_pred: Outputs.
        metrics: New values of the metrics' variables.
        touched: New values of the population's touched variables, None if they stay.
    """

    loss: Any
    fitness: Any
    scaled: Any
    y_pred: Any
    metrics: list
    touched: list


class Member:
    """Evaluates one member of a `Population`.

    Args:
        population: The population.
        pair: Index of its antithetic pair within the step, int32 scalar.
        sign: 0 or 1, which of the pair it is.
        masks: Boolean unit mask of each masked weight; None is the deployed one.
        metrics: Values of the metrics' variables before this member.

    Attributes:
        fitness: Scalar, lower is better.
        valid: Boolean scalar, whether loss, fitness and gradients are finite.
        gradients: For each trainable variable, 0 where the member did not use it.
        missing: Ids of the variables that the loss does not depend on.
        active: Where the gradient of each masked weight is allowed.
        guidance: What the optimizer asks of the gradient of each masked weight, dL/dm
            of its units as a rule; empty if not needed.
        metrics: New values of the metrics' variables.
        updates: For each touched variable its new value, or the change of it where
            the members' updates are averaged.
    """

    def __init__(self, population, pair, sign, masks, metrics):
        self.population, self.pair, self.sign = population, pair, sign
        self.masks, self.before = masks, metrics

    def evaluate(self, batch):
        """Evaluate on a batch (x, y, sample_weight) and return the member."""
        p = self.population
        effective, fixed = self._effective_values()
        values = [effective[id(v)] for v in p.variables]
        said, gradients, finite = self.differentiated(values, fixed, batch)
        self.fitness = said.fitness
        finite &= tf.math.is_finite(said.loss) & tf.math.is_finite(said.fitness)
        self.valid = tf.logical_and(finite, p.batch_size > 0)
        self._take_gradients(gradients)
        self.metrics = [
            tf.where(self.valid, tf.cast(new, old.dtype), old)
            for new, old in zip(said.metrics, self.before)
        ]
        self.updates = [self._update(v, new) for v, new in zip(p.touched, said.touched)]
        return self

    def differentiated(self, values, fixed, batch):
        """Return what the model says under some weights, and the loss's gradients.

        Args:
            values: Those of the population's variables.
            fixed: List of (variable, tensor) of what else is read.
            batch: (x, y, sample_weight).

        Returns:
            (`Said`, list of gradients or None of the scaled loss, boolean scalar:
            whether these are finite, if that is looked at).
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            said = self.called(values, fixed, batch)
        gradients = tape.gradient(said.scaled, values)
        checked = self.population.checks_gradients
        return said, gradients, all_finite(gradients) if checked else tf.constant(True)

    def called(self, values, fixed, batch):
        """Call the model with some weights and return what it `Said`."""
        p = self.population
        mapping = [*zip(p.variables, values), *fixed, *zip(p.metrics, self.before)]
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with scope, effective_weights():
            loss, fitness, scaled, y_pred = self._losses(*batch)
        metrics = [scope.get_current_value(v) for v in p.metrics]
        touched = [scope.get_current_value(v) for v in p.touched]
        return Said(loss, fitness, scaled, y_pred, metrics, touched)

    def _effective_values(self):
        effective, overrides = dict(self.population.values), []
        for masked, units in zip(self.population.masked, self.masks):
            key = id(masked.kernel)
            effective[key], more = masked.member_values(effective[key], units)
            overrides += more
        return effective, overrides + self.population.frozen + self._seeds()

    def _seeds(self):
        """Give each pair its own dropout noise."""
        seeds = []
        for variable in self.population.touched:
            value = tf.convert_to_tensor(variable.value)
            if is_seed(value):
                seeds.append((variable, value + self._seed_shift(value.dtype)))
        return seeds

    def _seed_shift(self, dtype):
        # Both members of a pair share a seed, and pair 0 has that of plain Keras.
        pair = self.population.optimizer.global_step_pair(self.pair)
        shift = tf.cast(pair, dtype) * 1000003
        return tf.stack([shift, tf.zeros_like(shift)])

    def _losses(self, x, y, sample_weight):
        model, optimizer = self.population.model, self.population.optimizer
        y_pred = _compat.forward(model, x, training=True)
        loss = total_loss(model, x, y, y_pred, sample_weight)
        y_pred, seen = self.seen(y_pred), self.seen(loss)
        plain = _compat.unscale_loss_for_distribution(seen)
        count = batch_size(x)
        _compat.loss_tracker(model).update_state(plain, sample_weight=count)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        fitness = plain
        if optimizer.fitness is not None:
            fitness = mean_fitness(optimizer.fitness, y, y_pred, sample_weight)
        scaled = optimizer.scale_loss(loss)
        plain, fitness = tf.cast(plain, tf.float32), tf.cast(fitness, tf.float32)
        return plain, fitness, scaled, y_pred

    def seen(self, value):
        """Return the outputs or the loss as fitness and metrics see them."""
        return value

    def _take_gradients(self, gradients):
        p = self.population
        by_id = {id(v): g for v, g in zip(p.variables, gradients)}
        self.missing = {i for i, g in by_id.items() if g is None}
        for i, gradient in by_id.items():
            known = i not in self.missing
            zeros = tf.zeros_like(p.values[i])
            by_id[i] = tf.convert_to_tensor(gradient) if known else zeros
        allowed = {i: self.valid for i in by_id}
        self.active, self.guidance = [], []
        for masked, units in zip(p.masked, self.masks):
            key = id(masked.kernel)
            active = masked.active(units)
            reached = p.optimizer.latents.reached(active)
            allowed[key] = tf.logical_and(reached, self.valid)
            self.active.append(tf.logical_and(active, self.valid))
            if p.optimizer.needs_guidance:
                unit = p.optimizer.unit_guidance(
                    masked, by_id[key], p.values[key], units
                )
                self.guidance.append(self._known(tf.cast(unit, tf.float32)))
        self.gradients = [
            tf.where(allowed[id(v)], by_id[id(v)], tf.zeros_like(by_id[id(v)]))
            for v in p.variables
        ]

    def _known(self, unit):
        known = self.valid
        if self.population.optimizer.scales_loss:
            # A float16 gradient may overflow while the loss is finite.
            known = tf.logical_and(known, tf.math.is_finite(unit))
        return tf.where(known, unit, 0.0)

    def _update(self, variable, new):
        old = tf.convert_to_tensor(variable.value)
        averaged = self.population.averaged(old)
        if new is None:
            return tf.zeros_like(old) if averaged else old
        new = tf.cast(new, old.dtype)
        if averaged:
            return tf.where(self.valid, new - old, tf.zeros_like(old))
        return new - self._seed_shift(new.dtype) if is_seed(new) else new


def all_finite(gradients):
    """Tell whether all numbers of some gradients are finite, a boolean scalar.

    A product with a constant vector is NaN or infinite in the rows that are not finite
    themselves. XLA on a CPU makes of it a seventh of what `reduce_all(is_finite(g))`
    takes, which it computes number by number.

    Args:
        gradients: List of tensors, `IndexedSlices` or None.
    """
    rows = []
    for gradient in gradients:
        if gradient is None:
            continue
        gradient = tf.convert_to_tensor(gradient)
        columns = gradient.shape[-1] if gradient.shape.rank else 1
        matrix = tf.reshape(gradient, (-1, columns))
        # Half the mean: no sum of finite numbers can overflow.
        weights = tf.fill((columns,), tf.constant(0.5 / columns, gradient.dtype))
        rows.append(tf.math.is_finite(tf.linalg.matvec(matrix, weights)))
    return tf.reduce_all(tf.concat(rows, 0)) if rows else tf.constant(True)
