"""`MaskOptimizer`: a Keras optimizer of the weights that also owns the masks."""

import keras
import tensorflow as tf
from keras import ops

from keras_es import _compat
from keras_es.distribution import assign_all, replica_index
from keras_es.optimizers.arguments import check_inner, check_integer, refuse_unknown
from keras_es.optimizers.deployment import deploy
from keras_es.optimizers.guarded import guarded_apply
from keras_es.optimizers.wrapper import OptimizerWrapper


class MaskOptimizer(OptimizerWrapper):
    """Train weights with `inner_optimizer` and move masks in the same step.

    One training step of `ESModel`, with this object's part in it:

    1. `member_masks(pair)`: the unit masks of the members of one pair, from
       (seed, generation, pair). Nothing is stored.
    2. the model is evaluated with each; losses and gradients come back.
    3. `search_gradient(fitness, valid, guidance)`: what the losses say of the masks.
    4. `update_weights`: the inner optimizer, never on weights that no member used.
    5. `update_masks(search_gradient, ok)`: scores move, the deployed mask follows.
    6. `move_masks(guidance, ok)`, if `scheduled`, after steps that `move_is_due` names.

    To write a method, override the class attributes and hooks below. This one moves
    towards the better of the first two members:

    ```python
    class HillClimb(keras_es.optimizers.EvolutionStrategy):
        def search_gradient(self, fitness, valid, guidance):
            sign = keras.ops.where(fitness[0] < fitness[1], -1.0, 1.0)
            return [sign * noise for noise in self.noise(0)]

        def update_masks(self, search_gradient, ok):
            return [
                masked.mask_scores.value - 0.1 * gradient
                for masked, gradient in zip(self.masked_weights, search_gradient)
            ]
    ```

    Args:
        inner_optimizer: Keras optimizer, its name or its config; it trains the
            differentiable weights. Clipping, weight decay, EMA, schedules and loss
            scaling are set there. `gradient_accumulation_steps` is refused: a
            weight would be accumulated under one mask and applied under another.
        seed: Integer. Noise is a function of (seed, generation, member).
        name: Name of the optimizer.

    Raises:
        ValueError: If the inner optimizer cannot be used, or if an argument belongs
            to it.
    """

    population_size = 1
    """Members evaluated in one step; 1 is the deployed mask itself."""

    batch_mode = "full"
    """"split": members share the batch out; "full": each sees all of it."""

    fitness = None
    """None for the model's loss, or a function (y, y_pred) -> per-example values."""

    turns = None
    """`Turns` if a generation takes several steps."""

    needs_guidance = False
    """Whether `search_gradient` or `move_masks` wants `unit_guidance`."""

    scheduled = False
    """Whether masks move by `move_masks`, after the steps that `move_is_due` says."""

    resets_slots = False
    """Whether the slots of weights that come back start anew."""

    grows_from_zero = False
    """Whether weights that come back start at zero, else where they were."""

    ranked_together = False
    """Whether the members of several replicas are one population."""

    compiled_together = True
    """Whether XLA may compile members and updates as one program."""

    pure = False
    """Whether weights are evolved, and no gradient is taken."""

    evolves_weights = False
    """Whether `inner_optimizer` may be None (see `EvolvesWeights`)."""

    def __init__(self, inner_optimizer, *, seed=0, name=None, **kwargs):
        refuse_unknown(type(self).__name__, kwargs)
        super().__init__(learning_rate=0.0, name=name)
        inner = check_inner(inner_optimizer, MaskOptimizer, self.evolves_weights)
        self.inner_optimizer = inner
        self.seed = check_integer("seed", seed)
        self.masked_weights = []
        # Straight into __dict__: TensorFlow would track it, and cannot export its keys.
        self.__dict__["_slots"], self.__dict__["_slot_starts"] = {}, {}
        self.__dict__["compiled"] = lambda function: function()

    # Hooks of a method.

    def build_search(self):
        """Create the state of the search, for `self.masked_weights`."""

    def member_masks(self, pair):
        """Return the masks of the members of one pair.

        Args:
            pair: Index of the pair, int32 scalar tensor.

        Returns:
            List with one entry for each member of the pair (two, or one if
            `population_size` is 1), each the list of boolean unit masks of
            `self.masked_weights`; None stands for the deployed mask.
        """
        return [[None for _ in self.masked_weights]]

    def search_gradient(self, fitness, valid, guidance):
        """Return what `update_masks` needs, a list of tensors (pure).

        Args:
            fitness: [population_size] losses, lower is better.
            valid: [population_size] booleans, False where not finite.
            guidance: List of mean `unit_guidance`, or None.
        """
        return []

    def unit_guidance(self, masked, gradient, value, units):
        """Return what is wanted of the gradient g at an effective kernel (pure).

        Asked for if `needs_guidance`, for each member; the mean over members goes on.
        By default dL/dm of each unit, the sum of g * w over it.

        Args:
            masked: The masked weight.
            gradient: g, of the kernel's shape, at active and inactive weights.
            value: w, the latent kernel.
            units: Boolean unit mask of the member, None for the deployed one.
        """
        return masked.unit_gradient(gradient, value, units)

    def move_is_due(self):
        """Tell whether masks move after this step, a function of the state alone."""
        raise NotImplementedError

    def move_masks(self, guidance, ok):
        """Move masks by the weights after this step.

        Args:
            guidance: List of mean `unit_guidance` over members and replicas, or [].
            ok: Boolean scalar; if False nothing may change.
        """

    def update_masks(self, search_gradient, ok):
        """Move scores and search distribution.

        Args:
            search_gradient: What the hook of that name returned.
            ok: Boolean scalar; if False nothing may change.

        Returns:
            List of new score tensors, or None if scores did not move.
        """
        return None

    def masks_decoded(self, scores, units, ok):
        """Follow the new scores and the deployed unit masks, for each weight.

        Args:
            scores: List of score tensors.
            units: List of boolean unit masks.
            ok: Boolean scalar; if False nothing may change.
        """

    # Common work.

    @property
    def pairs(self):
        """Number of antithetic pairs in the population."""
        return max(1, self.population_size // 2)

    @property
    def members_per_pair(self):
        """2, or 1 for a method without a population."""
        return min(2, self.population_size)

    @property
    def members_in_step(self):
        """Number of members that are evaluated in one step."""
        return self.pairs_in_step * self.members_per_pair

    @property
    def pairs_in_step(self):
        """Number of pairs that are evaluated in one step."""
        return self.pairs

    @property
    def splits_batch(self):
        """Whether the members of a step share its batch out."""
        return self.batch_mode == "split" and self.population_size > 1

    def steps_per_generation(self, model):
        """Return how many steps of `fit` a generation takes: 1.

        Args:
            model: A model with masked layers.
        """
        return 1

    def global_pair(self, pair):
        """Return the index of a pair among those of all replicas, for its noise."""
        return pair + replica_index() * self.pairs

    def global_step_pair(self, pair):
        """Return the index of a pair of this step among those of all replicas."""
        return pair + replica_index() * self.pairs_in_step

    def steps_done(self):
        """Return the number of steps so far, int64 scalar."""
        turns, done = self.turns, self.generation.value
        return done if turns is None else done * turns.steps + turns.step.value

    def step_masks(self, pair):
        """Return `member_masks` of one of the pairs of this step."""
        return self.member_masks(pair)

    def build(self, variables):
        """Create the inner optimizer's state and that of the search."""
        if self.built:
            return
        variables = list(variables)
        self.masked_weights = [
            v.masked_weight for v in variables if hasattr(v, "masked_weight")
        ]
        counters = ("generation", "nonfinite_members", "skipped_steps")
        for name in (*counters, "mask_flip_ratio"):
            dtype = "int64" if name in counters else "float32"
            shared = {"aggregation": "only_first_replica"}
            counter = self.add_variable((), dtype=dtype, name=name, **shared)
            self.__dict__[name] = counter
        if self.inner_optimizer is not None:
            slots, starts = _compat.record_slots(self.inner_optimizer, variables)
            self.__dict__["_slots"], self.__dict__["_slot_starts"] = slots, starts
        self.build_search()
        super().build(variables)

    def update_weights(self, gradients, variables, active, ok):
        """Apply the inner optimizer where it may act.

        A weight that no member of this step used keeps its value and its slots to
        the bit, so stale momentum cannot move it while it is masked out.

        Args:
            gradients: Gradient of each variable, or None.
            variables: The trainable variables.
            active: Boolean union of the members' masks for each masked weight.
            ok: Boolean scalar; if False nothing changes.
        """
        allowed = {}
        for masked, mask in zip(self.masked_weights, active):
            mask = tf.logical_and(mask, ok)
            for variable in (masked.kernel, *self._slots.get(id(masked.kernel), ())):
                allowed[id(variable)] = mask
        guarded_apply(self.inner_optimizer, gradients, variables, allowed, ok)

    def end_generation(self, search_gradient, ok):
        """Move scores, deploy the masks that are decoded from them, and count.

        Args:
            search_gradient: What the hook of that name returned, of all replicas.
            ok: Boolean scalar, whether any member was valid.
        """
        self.deploy_scores(self.update_masks(search_gradient, ok), ok)

    def deploy_scores(self, new_scores, ok):
        """Set scores (None: they stay), deploy their masks, and count."""
        flipped, assignments = 0.0, []
        if new_scores is not None:
            new_scores = [
                ops.where(ok, scores, masked.mask_scores.value)
                for masked, scores in zip(self.masked_weights, new_scores)
            ]
            units = [m.decode(s) for m, s in zip(self.masked_weights, new_scores)]
            self.masks_decoded(new_scores, units, ok)
            assignments, flipped = deploy(self, new_scores, units)
        assignments += [
            (self.generation, self.generation.value + 1),
            (self.mask_flip_ratio, self.share_of_weights(flipped)),
        ]
        assign_all(assignments)

    def share_of_weights(self, number):
        """Return a number of weights as a share of all masked ones, float32 scalar."""
        size = sum(m.size for m in self.masked_weights) or 1
        return tf.cast(tf.cast(number, tf.float64) / size, tf.float32)

    def nonzeros(self):
        """Return the number of non-zeros of the deployed masks."""
        return sum(m.nnz for m in self.masked_weights)

    def count_step(self, valid, ok):
        """Count the members of this step that failed, and the step if all did."""
        failed = tf.reduce_sum(tf.cast(tf.logical_not(valid), tf.int64))
        skipped = tf.cast(tf.logical_not(ok), tf.int64)
        assign_all(
            [
                (self.nonfinite_members, self.nonfinite_members.value + failed),
                (self.skipped_steps, self.skipped_steps.value + skipped),
            ]
        )

    def step_logs(self):
        """Return sparsity, mask_flip_ratio, nonfinite_members and skipped_steps."""
        zeros = sum(m.size for m in self.masked_weights) - self.nonzeros()
        logs = {
            name: tf.cast(tf.convert_to_tensor(self.__dict__[name].value), tf.float32)
            for name in ("mask_flip_ratio", "nonfinite_members", "skipped_steps")
        }
        logs["sparsity"] = self.share_of_weights(zeros)
        return logs

    def apply(self, grads, trainable_variables=None):
        """Refuse: masks can only move in a step that evaluates members."""
        raise RuntimeError(
            f"{type(self).__name__} moves masks within the train step of an "
            "`ESModel`; plain gradients are not enough. Make the model with "
            "`keras_es.sparsify(model, ...)`, or `keras_es.es_model(model)` without "
            "masks, or derive its class from `keras_es.ESMixin` before `keras.Model`. "
            f"Received: optimizer={self.name!r} used outside such a model"
        )

    def get_config(self):
        """Return the arguments of the constructor."""
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return {
            "inner_optimizer": inner,
            "seed": self.seed,
            "name": self.name,
        }


def register(cls):
    """Register an optimizer with Keras under the package's name."""
    return keras.saving.register_keras_serializable(package="keras_es")(cls)
