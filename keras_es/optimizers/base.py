"""`MaskOptimizer`: a Keras optimizer of the weights that also owns the masks."""

import functools
import inspect

import keras
import tensorflow as tf
from keras import ops

from keras_es import _arguments, _compat
from keras_es._arguments import Argument, integer, optional, text
from keras_es.distribution.collectives import assign_all, replica_index
from keras_es.optimizers import arguments, magnitudes
from keras_es.optimizers.density import ActiveUnits, refuse_block_sparse
from keras_es.optimizers.deployment import deploy
from keras_es.optimizers.guarded import guarded_apply
from keras_es.optimizers.hooks import MaskHooks
from keras_es.optimizers.wrapper import OptimizerWrapper


class MaskOptimizer(MaskHooks, OptimizerWrapper):
    """Train weights with `inner_optimizer` and move masks in the same step.

    One training step of `ESModel`, with this object's part in it:

    1. `member_masks(pair)`: the unit masks of the members of one pair, from
       (seed, generation, pair). Nothing is stored.
    2. the model is evaluated with each; losses and gradients come back.
    3. `search_gradient(fitness, valid, guidance)`: what the losses say of the masks.
    4. `update_weights`: the inner optimizer, never on weights that no member used.
    5. `update_masks(search_gradient, ok)`: scores move, the deployed mask follows.
    6. `move_masks(guidance, ok)`, if `scheduled`, after steps that `move_is_due` names.

    To write a method, override what `MaskHooks` lists. This one moves towards the
    better of the first two members:

    ```python
    class HillClimb(keras_es.optimizers.EvolutionStrategy):
        def search_gradient(self, fitness, valid, guidance):
            sign = keras.ops.where(fitness[0] < fitness[1], -1.0, 1.0)
            return [sign * noise for noise in self.pair_noise(0)]

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

    inner_optimizer = Argument(arguments.optimizer_of_weights)
    seed = Argument(integer(), 0, keyword=True)
    name = Argument(optional(text), None, keyword=True)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):  # a class that takes its arguments by hand
            parameters = list(inspect.signature(cls.__init__).parameters.values())
            cls.__signature__ = inspect.Signature(parameters[1:])
        else:
            cls.__signature__ = _arguments.signature(cls)

    def __init__(self, *args, **kwargs):
        refuse = functools.partial(arguments.refuse_unknown, type(self))
        values = _arguments.bind(type(self), args, kwargs, refuse)
        super().__init__(learning_rate=0.0, name=values.pop("name"))
        for name, value in values.items():
            setattr(self, name, value)
        self.masked_weights = []
        self.check_arguments()
        # Straight into __dict__: TensorFlow would track it, and cannot export its keys.
        self.__dict__["_slots"], self.__dict__["_slot_starts"] = {}, {}
        self.__dict__["compiled"] = lambda function: function()

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
        turns, done = self.taking_turns, self.generation.value
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
        if self.sparsity_schedule is not None:
            # Not through Keras's tracking of attributes, which is for state.
            active = ActiveUnits(self, self.sparsity_schedule)
            self.__dict__["active_units"] = active
            active.build(self.first_scores())
        if self.magnitude_pull is not None:
            refuse_block_sparse(
                self,
                "compares the magnitudes of all units (`magnitude_pull`), and a "
                "block-sparse layer stores active ones only",
            )
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
        scores = magnitudes.pulled(self, self.update_masks(search_gradient, ok))
        self.deploy_scores(scores, ok)

    def deploy_scores(self, new_scores, ok):
        """Set scores (None: they stay), deploy their masks, and count."""
        flipped, assignments = 0.0, []
        if new_scores is not None:
            new_scores = [
                ops.where(ok, scores, masked.mask_scores.value)
                for masked, scores in zip(self.masked_weights, new_scores)
            ]
            units = self.decode_scores(new_scores, ok)
            self.masks_decoded(new_scores, units, ok)
            assignments, flipped = deploy(self, new_scores, units)
        assignments += [
            (self.generation, self.generation.value + 1),
            (self.mask_flip_ratio, self.share_of_weights(flipped)),
        ]
        assign_all(assignments)

    def unit_counts(self):
        """Return how many units of each weight are active; None for the wanted."""
        if self.active_units is None:
            return [None for _ in self.masked_weights]
        return self.active_units.now()

    def decode_scores(self, scores, ok):
        """Return the boolean unit masks of the next generation."""
        if self.active_units is None:
            counts = self.unit_counts()
        else:
            turns = self.taking_turns
            steps = 1 if turns is None else turns.steps
            counts = self.active_units.follow((self.generation.value + 1) * steps, ok)
        return [
            m.decode(s, count)
            for m, s, count in zip(self.masked_weights, scores, counts)
        ]

    def share_of_weights(self, number):
        """Return a number of weights as a share of all masked ones, float32 scalar."""
        size = sum(m.size for m in self.masked_weights) or 1
        return tf.cast(tf.cast(number, tf.float64) / size, tf.float32)

    def nonzeros(self):
        """Return the number of non-zeros of the deployed masks."""
        if self.active_units is not None:
            return self.active_units.nonzeros()
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
            "A copy by `keras.models.clone_model` is a plain model again, whatever it "
            "was copied from: `keras_es.es_model(copy)`, or save and load instead. "
            f"Received: optimizer={self.name!r} used outside such a model"
        )

    def check_arguments(self):
        """Raise for arguments that do not go together, and settle what is left open."""

    def get_config(self):
        """Return the arguments of the constructor."""
        return _arguments.config_of(self)


def register(cls):
    """Register an optimizer with Keras under the package's name."""
    return keras.saving.register_keras_serializable(package="keras_es")(cls)
