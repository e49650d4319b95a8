"""Evaluation of all members of a step: losses, gradients, and what the model updates.

A member is a set of variable overrides: each latent kernel is mapped to
`kernel * sampled mask`, and the model is called in a `keras.StatelessScope`. Layers
know nothing of it.
"""

import keras
import tensorflow as tf

from keras_es import _compat, conversion, distribution
from keras_es.evaluation import Evaluation
from keras_es.layers.masked_weight import effective_weights
from keras_es.ops import noise


class Population:
    """Evaluates the members of one step on one batch.

    Args:
        model: Compiled `ESModel` whose optimizer is a built `MaskOptimizer`.
        x: Inputs, any structure of tensors with a leading batch axis.
        y: Targets, or None.
        sample_weight: Weights, or None.

    Raises:
        ValueError: If a layer was frozen after `compile`.
    """

    def __init__(self, model, x, y, sample_weight):
        self.model, self.optimizer = model, model.optimizer
        self.batch = (x, y, sample_weight)
        first = next(i for i in keras.tree.flatten(x) if i is not None)
        self.batch_size = tf.shape(first)[0]
        self.variables = list(model.trainable_variables)
        self.values = {id(v): tf.convert_to_tensor(v.value) for v in self.variables}
        self.masked = self.optimizer.masked_weights
        self.frozen = self._frozen_values()
        self.metrics = list(model.metrics_variables)
        self.touched = self._touched_variables()

    def evaluate(self, jit_compile=False):
        """Evaluate all members and return an `Evaluation`.

        Args:
            jit_compile: Whether to compile this part by itself with XLA.
        """
        sums_of_members = self._sums_of_members
        if jit_compile:
            sums_of_members = tf.function(
                sums_of_members, autograph=False, jit_compile=True
            )
        return self._finish(sums_of_members())

    # Sums over members, a dict of tensors that a loop can carry.

    def _sums_of_members(self):
        sums = self._pair(0, self._zero_sums())
        if self.optimizer.pairs > 1:
            sums = tf.while_loop(
                lambda pair, _: pair < self.optimizer.pairs,
                lambda pair, sums: (pair + 1, self._pair(pair, sums)),
                (tf.constant(1), sums),
                maximum_iterations=self.optimizer.pairs - 1,
            )[1]
        return sums

    def _zero_sums(self):
        n = self.optimizer.population_size
        zeros = [tf.zeros_like(self.values[id(v)]) for v in self.variables]
        sums = {
            "fitness": tf.zeros([n]),
            "valid": tf.zeros([n], tf.bool),
            "gradients": zeros,
            "active": [tf.zeros(m.shape, tf.bool) for m in self.masked],
            "metrics": [tf.convert_to_tensor(v.value) for v in self.metrics],
            "touched": [self._zero_update(v) for v in self.touched],
        }
        if self.optimizer.needs_guidance:
            sums["guidance"] = [tf.zeros(m.mask_scores.shape) for m in self.masked]
        return sums

    def _averaged(self, value):
        """Whether members' updates are averaged; one alone is taken to the bit."""
        return value.dtype.is_floating and self.optimizer.population_size > 1

    def _zero_update(self, variable):
        value = tf.convert_to_tensor(variable.value)
        return tf.zeros_like(value) if self._averaged(value) else value

    def _pair(self, pair, sums):
        pair = tf.convert_to_tensor(pair)
        batch = self._share(pair)
        for sign, masks in enumerate(self.optimizer.member_masks(pair)):
            member = pair * self.optimizer.members_per_pair + sign
            sums = self._member(member, pair, masks, batch, sums)
        return sums

    def _share(self, pair):
        """Return the examples of a pair.

        In split mode there are B/n examples for each of the n/2 pairs, starting at a
        place that is drawn for each step, so that all of the data is seen whatever
        its order. Shares wrap around, so a small last batch still serves every pair.
        """
        if self.optimizer.batch_mode == "full" or self.optimizer.population_size == 1:
            return self.batch
        share = tf.maximum(self.batch_size // self.optimizer.population_size, 1)
        key = noise.stream_key(self.optimizer.seed, "batch share")
        seed = noise.counter_seed(key, self.optimizer.generation.value, 0)
        start = noise.uniform((), seed) * tf.cast(self.batch_size, tf.float32)
        start = tf.cast(start, tf.int32) + pair * share
        # The last batch may leave a replica without examples.
        rows = (start + tf.range(share)) % tf.maximum(self.batch_size, 1)
        rows = rows[: self.batch_size]
        return keras.tree.map_structure(
            lambda t: None if t is None else tf.gather(t, rows), self.batch
        )

    def _member(self, member, pair, masks, batch, sums):
        effective = self._effective_values(masks)
        seen, carried = self._state_mapping(pair, sums)
        mapping = [(v, effective[id(v)]) for v in self.variables]
        mapping += self.frozen + seen + carried
        scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            watched = [effective[id(v)] for v in self.variables]
            tape.watch(watched)
            with scope, effective_weights():
                loss, fitness, scaled = self._losses(*batch)
        gradients = tape.gradient(scaled, watched)
        valid = tf.logical_and(tf.math.is_finite(loss), tf.math.is_finite(fitness))
        valid = tf.logical_and(valid, self.batch_size > 0)
        return self._add(sums, member, pair, fitness, valid, gradients, masks, scope)

    def _effective_values(self, masks):
        effective = dict(self.values)
        for masked, units in zip(self.masked, masks):
            latent = self.values[id(masked.kernel)]
            mask = self._full_mask(masked, units)
            effective[id(masked.kernel)] = tf.where(mask, latent, tf.zeros_like(latent))
        return effective

    def _frozen_values(self):
        """Return (kernel, effective value) of the masked weights that do not train.

        In the scope of a member layers do not apply their masks themselves.
        """
        moving = {id(m.kernel) for m in self.masked}
        frozen = [m for m in self.masked if id(m.kernel) not in self.values]
        if frozen:
            raise ValueError(
                "Layers were frozen after the model was compiled. Call `compile` "
                "again after a change of `trainable`. Received: trainable=False for "
                f"{[m.name for m in frozen]}"
            )
        return [
            (m.kernel, m.effective_value())
            for m in conversion.masked_weights(self.model)
            if id(m.kernel) not in moving
        ]

    @staticmethod
    def _full_mask(masked, units):
        if units is None:
            return tf.convert_to_tensor(masked.kernel_mask.value)
        return masked.expand(units)

    def _state_mapping(self, pair, sums):
        """Give each pair its own dropout noise, and metrics their running state."""
        seen = []
        for variable in self.touched:
            value = tf.convert_to_tensor(variable.value)
            if not value.dtype.is_floating and value.shape == (2,):
                # A seed state (seed, counter): both members of a pair share it, and
                # pair 0 has that of plain Keras.
                seen.append((variable, value + self._seed_shift(pair, value.dtype)))
        return seen, list(zip(self.metrics, sums["metrics"]))

    def _seed_shift(self, pair, dtype):
        shift = tf.cast(self.optimizer.global_pair(pair), dtype) * 1000003
        return tf.stack([shift, tf.zeros_like(shift)])

    def _losses(self, x, y, sample_weight):
        model = self.model
        y_pred = _compat.forward(model, x, training=True)
        loss = _compat.compute_loss(model, x, y, y_pred, sample_weight)
        plain = _compat.unscale_loss_for_distribution(loss)
        count = tf.shape(next(i for i in keras.tree.flatten(x) if i is not None))[0]
        _compat.loss_tracker(model).update_state(plain, sample_weight=count)
        model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        fitness = plain
        if self.optimizer.fitness is not None:
            fitness = _mean_fitness(self.optimizer.fitness, y, y_pred, sample_weight)
        scaled = self.optimizer.scale_loss(loss)
        return tf.cast(plain, tf.float32), tf.cast(fitness, tf.float32), scaled

    def _add(self, sums, member, pair, fitness, valid, gradients, masks, scope):
        here = tf.equal(tf.range(self.optimizer.population_size), member)
        sums = dict(sums)
        sums["fitness"] = tf.where(here, fitness, sums["fitness"])
        sums["valid"] = tf.where(here, valid, sums["valid"])
        by_id = dict(zip(map(id, self.variables), gradients))
        self._missing = {id(v) for v in self.variables if by_id[id(v)] is None}
        by_id = {
            i: tf.zeros_like(self.values[i]) if g is None else tf.convert_to_tensor(g)
            for i, g in by_id.items()
        }
        allowed = {id(v): valid for v in self.variables}
        active, guidance = [], []
        for i, (masked, units) in enumerate(zip(self.masked, masks)):
            key = id(masked.kernel)
            mask = tf.logical_and(self._full_mask(masked, units), valid)
            allowed[key] = mask
            active.append(tf.logical_or(sums["active"][i], mask))
            if self.optimizer.needs_guidance:
                unit = masked.reduce(by_id[key] * self.values[key])
                # A float16 gradient may overflow while the loss is finite.
                known = tf.logical_and(valid, tf.math.is_finite(unit))
                unit = tf.where(known, tf.cast(unit, tf.float32), 0.0)
                guidance.append(sums["guidance"][i] + unit)
        sums["active"] = active
        if self.optimizer.needs_guidance:
            sums["guidance"] = guidance
        sums["gradients"] = [
            total + tf.where(allowed[id(v)], by_id[id(v)], tf.zeros_like(total))
            for v, total in zip(self.variables, sums["gradients"])
        ]
        sums["metrics"] = [
            tf.where(valid, tf.cast(scope.get_current_value(v), old.dtype), old)
            for v, old in zip(self.metrics, sums["metrics"])
        ]
        sums["touched"] = [
            self._add_update(v, scope, old, valid, pair)
            for v, old in zip(self.touched, sums["touched"])
        ]
        return sums

    def _add_update(self, variable, scope, old, valid, pair):
        new = scope.get_current_value(variable)
        if new is None:
            return old
        new = tf.cast(new, old.dtype)
        if self._averaged(old):
            change = new - tf.convert_to_tensor(variable.value)
            return old + tf.where(valid, change, tf.zeros_like(change))
        if not new.dtype.is_floating and new.shape == (2,):
            new = new - self._seed_shift(pair, new.dtype)
        return tf.where(tf.equal(pair, 0), new, old)

    def _finish(self, sums):
        count = tf.reduce_sum(tf.cast(sums["valid"], tf.float32))
        count = tf.maximum(count, 1.0)
        ok = tf.reduce_any(sums["valid"])
        gradients = [
            None if id(v) in self._missing else g / tf.cast(count, g.dtype)
            for v, g in zip(self.variables, sums["gradients"])
        ]
        guidance = None
        if self.optimizer.needs_guidance:
            scale = tf.cast(self.optimizer.scale_loss(1.0), tf.float32) * count
            # Keras shares the loss out over the replicas.
            scale = scale / distribution.replica_count()
            guidance = [g / scale for g in sums["guidance"]]
        metrics = list(zip(self.metrics, sums["metrics"]))
        state = []
        for variable, update in zip(self.touched, sums["touched"]):
            old = tf.convert_to_tensor(variable.value)
            if self._averaged(update):
                update = old + update / tf.cast(count, update.dtype)
            state.append((variable, tf.where(ok, update, old)))
        active = dict(zip((id(m.kernel) for m in self.masked), sums["active"]))
        return Evaluation(
            sums["fitness"], sums["valid"], gradients, guidance, active, state, metrics
        )

    def _touched_variables(self):
        """Return the non-trainable variables that a training call updates.

        Found by a trace on the side, which runs nothing: a model may hold large
        frozen weights, and a loop should not carry them.
        """
        mask_state = {
            id(v) for m in self.masked for v in (m.kernel_mask, m.mask_scores)
        }
        candidates = [
            v for v in self.model.non_trainable_variables if id(v) not in mask_state
        ]
        if not candidates or tf.executing_eagerly():
            return candidates
        updated = []

        def probe():
            scope = keras.StatelessScope(collect_losses=True)
            with scope, effective_weights():
                _compat.forward(self.model, self.batch[0], training=True)
            updated.extend(
                v for v in candidates if scope.get_current_value(v) is not None
            )

        tf.function(probe, autograph=False).get_concrete_function()
        return updated


def _mean_fitness(function, y, y_pred, sample_weight):
    """Return the weighted mean of a per-example fitness."""
    values = tf.cast(tf.convert_to_tensor(function(y, y_pred)), tf.float32)
    if sample_weight is None or values.shape.rank == 0:
        return tf.reduce_mean(values)
    weight = tf.cast(tf.convert_to_tensor(sample_weight), tf.float32)
    weight = tf.reshape(
        weight, tf.concat([tf.shape(weight)[:1], tf.ones_like(tf.shape(values)[1:])], 0)
    )
    # Keras divides a weighted loss by the number of examples, not by the weights.
    return tf.reduce_mean(values * weight)
