"""One member: the model called with the weights that the member sees."""

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.layers.masked_weight import effective_weights
from keras_es.populations.evaluation import mean_fitness
from keras_es.populations.model_state import is_seed


class Member:
    """Evaluates one member of a `Population`.

    Args:
        population: The population.
        pair: Index of its antithetic pair within the step, int32 scalar.
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

    def __init__(self, population, pair, masks, metrics):
        self.population, self.pair, self.masks = population, pair, masks
        self.before = metrics

    def evaluate(self, batch):
        """Evaluate on a batch (x, y, sample_weight) and return the member."""
        p = self.population
        effective, mapping = self._effective_values()
        mapping += p.frozen + self._seeds() + list(zip(p.metrics, self.before))
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watched = [effective[id(v)] for v in p.variables]
            tape.watch(watched)
            with scope, effective_weights():
                loss, self.fitness, scaled = self._losses(*batch)
        gradients = tape.gradient(scaled, watched)
        finite = tf.math.is_finite(loss) & tf.math.is_finite(self.fitness)
        if p.checks_gradients:
            finite &= all_finite(gradients)
        self.valid = tf.logical_and(finite, p.batch_size > 0)
        self._take_gradients(gradients)
        self.metrics = [
            tf.where(self.valid, tf.cast(scope.get_current_value(v), old.dtype), old)
            for v, old in zip(p.metrics, self.before)
        ]
        self.updates = [self._update(v, scope.get_current_value(v)) for v in p.touched]
        return self

    def _effective_values(self):
        effective, overrides = dict(self.population.values), []
        for masked, units in zip(self.population.masked, self.masks):
            key = id(masked.kernel)
            effective[key], more = masked.member_values(effective[key], units)
            overrides += more
        kernels = [(v, effective[id(v)]) for v in self.population.variables]
        return effective, kernels + overrides

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
        loss = _compat.compute_loss(model, x, y, y_pred, sample_weight)
        plain = _compat.unscale_loss_for_distribution(loss)
        count = tf.shape(next(i for i in keras.tree.flatten(x) if i is not None))[0]
        _compat.loss_tracker(model).update_state(plain, sample_weight=count)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        fitness = plain
        if optimizer.fitness is not None:
            fitness = mean_fitness(optimizer.fitness, y, y_pred, sample_weight)
        scaled = optimizer.scale_loss(loss)
        return tf.cast(plain, tf.float32), tf.cast(fitness, tf.float32), scaled

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
