"""Evaluation of a population of perturbed weights on one batch, by losses alone."""

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.populations.evaluation import Evaluation, total_loss, weighted_fitness
from keras_es.populations.examples import (
    batch_size,
    first_input,
    fitness_parts,
    mean_outputs,
    never_empty,
    sample_examples,
)
from keras_es.populations.mapping import join
from keras_es.populations.model_state import (
    counted_variables,
    frozen_values,
    refuse_fixed_batch,
    refuse_nothing_to_evolve,
    touched_variables,
)


class EvolvedPopulation:
    """Evaluates all members of a generation on a batch, or examples of it, they share.

    Each member normalizes with the statistics of its own activations; moving statistics
    get the mean of the members' updates. No gradient is taken.

    Args:
        model: Compiled `ESModel` whose optimizer evolves the weights.
        x: Inputs, any structure of tensors with a leading batch axis.
        y: Targets, or None.
        sample_weight: Weights, or None.

    Raises:
        ValueError: If there is nothing to evolve, a layer was frozen after `compile`,
            or members would see fewer examples than the model can be called with.
    """

    def __init__(self, model, x, y, sample_weight):
        self.model, self.optimizer = model, model.optimizer
        refuse_nothing_to_evolve(model)
        self.search = self.optimizer.search
        self.batch = never_empty((x, y, sample_weight))
        self.examples = batch_size(x)
        self.has_examples = self.examples > 0
        self.by_example = self.search.output_noise() is not None
        self.sampled = self.search.sampled is not None
        if self.sampled:
            refuse_fixed_batch(
                model, "members see some examples of a batch: leave `batch_mode` out"
            )
        self.variables = list(model.trainable_variables)
        self.metrics = list(model.metrics_variables)
        masked = self.optimizer.masked_weights
        self.fixed = frozen_values(model, {id(v) for v in self.variables}, masked)
        self.touched = touched_variables(model, x)
        self.counted = counted_variables(model, *self.batch)

    def evaluate(self):
        """Evaluate all members and return an `Evaluation` without gradients."""
        before = metrics = [tf.convert_to_tensor(v.value) for v in self.metrics]
        if self.sampled:
            metrics = self._sample(metrics)
        results, metrics, said = self.search.evaluate_members(
            self.model,
            self._member,
            first_input(self.batch[0]).shape[0],
            fixed=self.fixed,
            after=None if self.sampled else self._members_metrics,
            state=metrics,
        )
        fitness, loss, valid, states = results
        metrics = self._track_loss(loss, valid, metrics)
        metrics = self._add_counted(before, states[len(self.touched) :], valid, metrics)
        count = tf.reduce_sum(tf.cast(valid, tf.float32))
        state = [_over_members(v, s, count) for v, s in zip(self.touched, states)]
        return Evaluation(fitness, valid, [], said, [], state, metrics)

    def _sample(self, metrics):
        """Go on with some examples of the batch; return the mean's metrics on all."""
        x, y, sample_weight = self.batch
        y_pred = mean_outputs(self.model, x)
        self.batch = sample_examples(self.model, self.batch, y_pred)
        known = self.has_examples
        return self._update_metrics(metrics, x, y, y_pred, sample_weight, known)

    def _member(self):
        """Return what one member said of the batch, and its new state."""
        x, y, sample_weight = self.batch
        model = self.model
        y_pred = _compat.forward(model, x, training=True)
        loss = total_loss(model, x, y, y_pred, sample_weight)
        loss = fitness = _compat.unscale_loss_for_distribution(loss)
        values, function = None, self.optimizer.fitness
        if function is not None:
            values = weighted_fitness(function, y, y_pred, sample_weight)
            fitness = tf.reduce_mean(values)
        loss, fitness = tf.cast(loss, tf.float32), tf.cast(fitness, tf.float32)
        valid = tf.math.is_finite(loss) & tf.math.is_finite(fitness)
        valid = valid & self.has_examples
        states = []
        # Read within the member's scope, which holds what the calls assigned.
        for variable in self.touched + self.counted:
            value = tf.convert_to_tensor(variable.value)
            if value.dtype.is_floating:
                value = tf.where(valid, value, tf.zeros_like(value))
            states.append(value)
        results: tuple = fitness, loss, valid, states
        if not self.sampled:
            results = *results, (y_pred, _compat.output_masks(y_pred))
        if not self.by_example:
            return results
        added = _compat.added_losses()
        parts = fitness_parts(model, self.batch, y_pred, values, added)
        if parts is None:  # Not known which part is whose: each has all of it.
            parts = fitness * tf.ones((batch_size(x),))
        return results, tf.where(self.has_examples, parts, 0.0)

    def _members_metrics(self, results, metrics):
        """Update the metrics with all examples of all members of a chunk at once.

        Not for each member: metrics take the best class by operations that XLA cannot
        vectorize. For a member that failed a valid one counts twice.
        """
        fitness, loss, valid, states, outputs = results
        members = valid.shape[0]
        index = tf.range(members)
        first = tf.argmax(tf.cast(valid, tf.int32), output_type=tf.int32)
        index = tf.where(valid, index, first)
        y_pred, masks = keras.tree.map_structure(
            lambda p: join(tf.gather(p, index)), outputs
        )
        _compat.set_output_masks(y_pred, masks)
        x, y, sample_weight = self.batch
        y, sample_weight = (
            keras.tree.map_structure(lambda t: _repeated(t, members), part)
            for part in (y, sample_weight)
        )
        known = tf.reduce_any(valid)
        metrics = self._update_metrics(metrics, x, y, y_pred, sample_weight, known)
        return (fitness, loss, valid, states), metrics

    def _update_metrics(self, metrics, x, y, y_pred, sample_weight, known):
        """Return the metrics' variables after some outputs; as before if not known."""
        scope = keras.StatelessScope(state_mapping=list(zip(self.metrics, metrics)))
        with scope:
            self.model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        return self._current(scope, metrics, known)

    def _track_loss(self, loss, valid, metrics):
        tracker = _compat.loss_tracker(self.model)
        examples = tf.cast(self.examples, tf.float32)
        weight = tf.cast(valid, tf.float32) * examples
        scope = keras.StatelessScope(state_mapping=list(zip(self.metrics, metrics)))
        with scope:
            tracker.update_state(tf.where(valid, loss, 0.0), sample_weight=weight)
        return self._current(scope, metrics, tf.reduce_any(valid))

    def _add_counted(self, before, values, valid, metrics):
        """Add to metrics what calls and losses of valid members did to them.

        Members do so side by side, so each one's change of a sum is added; before
        `compute_metrics` or after makes no difference then.
        """
        counted, found = dict(zip(map(id, self.counted), values)), []
        for variable, old, now in zip(self.metrics, before, metrics):
            if id(variable) in counted:
                change = counted[id(variable)] - old
                known = tf.reshape(valid, [-1] + [1] * old.shape.rank)
                change = tf.where(known, change, tf.zeros_like(change))
                now += tf.cast(tf.reduce_sum(change, axis=0), now.dtype)
            found.append(now)
        return found

    def _current(self, scope, metrics, known):
        return [
            tf.where(known, tf.cast(scope.get_current_value(v), old.dtype), old)
            for v, old in zip(self.metrics, metrics)
        ]


def _repeated(values, members):
    """Repeat a batch for each member."""
    if values is None:
        return None
    values = tf.convert_to_tensor(values)
    repeats = tf.concat([[members], tf.ones_like(tf.shape(values)[1:])], 0)
    return tf.tile(values, repeats)


def _over_members(variable, values, count):
    """Return the mean over valid members; of integers, such as seeds, the first's."""
    old = tf.convert_to_tensor(variable.value)
    if not old.dtype.is_floating:
        return tf.where(count > 0.0, tf.cast(values[0], old.dtype), old)
    mean = tf.reduce_sum(values, axis=0) / tf.cast(tf.maximum(count, 1.0), old.dtype)
    return tf.where(count > 0.0, mean, old)
