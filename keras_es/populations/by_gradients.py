"""Evaluation of the members of a step: losses, gradients, and what the model updates.

A member is a set of variable overrides: each latent kernel is mapped to
`kernel * sampled mask`, and the model is called in a `keras.StatelessScope`. Layers
know nothing of it.
"""

import keras
import tensorflow as tf

from keras_es.distribution import collectives
from keras_es.ops import noise
from keras_es.populations.evaluation import Evaluation
from keras_es.populations.examples import batch_size, rows_of
from keras_es.populations.member import Member
from keras_es.populations.model_state import (
    frozen_values,
    refuse_fixed_batch,
    touched_variables,
    warn_of_nothing_to_train,
)


class Population:
    """Evaluates the members of one step on one batch.

    Args:
        model: Compiled `ESModel` whose optimizer is a built `MaskOptimizer`.
        x: Inputs, any structure of tensors with a leading batch axis.
        y: Targets, or None.
        sample_weight: Weights, or None.

    Raises:
        ValueError: If a layer was frozen after `compile`, or if members would see
            fewer examples than the model can be called with.
    """

    member: type[Member] = Member

    def __init__(self, model, x, y, sample_weight):
        self.model, self.optimizer = model, model.optimizer
        warn_of_nothing_to_train(model)
        if self.optimizer.splits_batch:
            refuse_fixed_batch(model, 'members share a batch: give batch_mode="full"')
        self.batch = (x, y, sample_weight)
        self.batch_size = batch_size(x)
        self.variables = list(model.trainable_variables)
        self.values = {id(v): tf.convert_to_tensor(v.value) for v in self.variables}
        self.masked = self.optimizer.masked_weights
        self.frozen = frozen_values(model, self.values, self.masked)
        self.metrics = list(model.metrics_variables)
        self.touched = touched_variables(model, x)
        self.missing = set()
        # A scaled gradient may overflow (float16): its optimizer then skips the step
        # and lowers the scale, for which it has to see it.
        self.checks_gradients = model.check_gradients and not self.optimizer.scales_loss

    def evaluate(self):
        """Evaluate the members of this step and return an `Evaluation`."""
        first = self._pair(tf.constant(0), None)
        pairs = self.optimizer.pairs_in_step
        if pairs == 1:
            return self._finish(first)
        sums = tf.while_loop(
            lambda pair, _: pair < pairs,
            lambda pair, sums: (pair + 1, self._pair(pair, sums)),
            (tf.constant(1), first),
            maximum_iterations=pairs - 1,
        )[1]
        return self._finish(sums)

    def _pair(self, pair, sums):
        batch, rests = self._share(pair), self.optimizer.search_rests()
        for sign, masks in enumerate(self.optimizer.step_masks(pair)):
            if sign and rests is not False:
                # Equal members have nothing to compare; each is trained on its own.
                batch = self._share(pair, apart=rests)
            index = pair * self.optimizer.members_per_pair + sign
            metrics = self._metrics_before(sums)
            member = self.member(self, pair, sign, masks, metrics).evaluate(batch)
            sums = self._add(sums, index, pair, member)
        return sums

    def _metrics_before(self, sums):
        if sums is None:
            return [tf.convert_to_tensor(v.value) for v in self.metrics]
        return sums["metrics"]

    def _share(self, pair, apart=False):
        """Return the examples of a pair, or if `apart` others for its second member.

        In split mode there are B/M examples for each pair, with M members in the step,
        starting at a place that is drawn for each step, so that all of the data is seen
        whatever its order. Shares wrap around, so a small last batch still serves
        every pair.
        """
        if not self.optimizer.splits_batch:
            return self.batch
        share = tf.maximum(self.batch_size // self.optimizer.members_in_step, 1)
        key = noise.stream_key(self.optimizer.seed, "batch share")
        seed = noise.counter_seed(key, self.optimizer.steps_done(), 0)
        start = noise.uniform((), seed) * tf.cast(self.batch_size, tf.float32)
        start = tf.cast(start, tf.int32) + pair * share
        if apart is not False:
            start += tf.where(apart, self.optimizer.pairs_in_step * share, 0)
        # The last batch may leave a replica without examples.
        rows = (start + tf.range(share)) % tf.maximum(self.batch_size, 1)
        rows = rows[: self.batch_size]
        return rows_of(self.batch, rows)

    def averaged(self, value):
        """Whether members' updates are averaged; one alone is taken to the bit."""
        return value.dtype.is_floating and self.optimizer.members_in_step > 1

    # Sums over members, a dict of tensors that a loop can carry.

    def _add(self, sums, index, pair, member):
        here = tf.equal(tf.range(self.optimizer.members_in_step), index)
        new = {
            "fitness": tf.where(here, member.fitness, 0.0),
            "valid": tf.logical_and(here, member.valid),
            "gradients": member.gradients,
            "active": member.active,
            "metrics": member.metrics,
            "touched": member.updates,
            "guidance": member.guidance,
        }
        self.missing |= member.missing
        if sums is None:
            return new
        for key in ("fitness", "gradients", "guidance"):
            new[key] = keras.tree.map_structure(tf.add, sums[key], new[key])
        for key in ("valid", "active"):
            new[key] = keras.tree.map_structure(tf.logical_or, sums[key], new[key])
        new["touched"] = [
            old + update if self.averaged(old) else tf.where(pair > 0, old, update)
            for old, update in zip(sums["touched"], new["touched"])
        ]
        return new

    def _finish(self, sums):
        count = tf.reduce_sum(tf.cast(sums["valid"], tf.float32))
        count = tf.maximum(count, 1.0)
        ok = tf.reduce_any(sums["valid"])
        alone = self.optimizer.members_in_step == 1
        gradients = [
            None
            if id(v) in self.missing
            else (g if alone else g / tf.cast(count, g.dtype))
            for v, g in zip(self.variables, sums["gradients"])
        ]
        guidance = None
        if self.optimizer.needs_guidance:
            scale = tf.cast(self.optimizer.scale_loss(1.0), tf.float32) * count
            # Keras shares the loss out over the replicas.
            scale = scale / collectives.replica_count()
            guidance = [g / scale for g in sums["guidance"]]
        state = []
        for variable, update in zip(self.touched, sums["touched"]):
            old = tf.convert_to_tensor(variable.value)
            if self.averaged(update):
                update = old + update / tf.cast(count, update.dtype)
            state.append(tf.where(ok, update, old))
        return Evaluation(
            sums["fitness"], sums["valid"], gradients, guidance, sums["active"],
            state, sums["metrics"],
        )  # fmt: skip
