"""`MaskOptimizer`: a Keras optimizer of the weights that also owns the masks."""

import functools
import inspect
from typing import Any

import keras
import tensorflow as tf

from keras_es import _arguments
from keras_es._arguments import Argument, integer, optional, text
from keras_es.distribution.collectives import (
    assign_all,
    mean_over_replicas,
    replica_index,
)
from keras_es.optimizers import arguments, deployment, magnitudes
from keras_es.optimizers.density import ActiveUnits, refuse_block_sparse
from keras_es.optimizers.inner import Inner
from keras_es.optimizers.search.ranking import sums_compiled_by
from keras_es.populations.by_gradients import Population

COUNTERS = {
    "generation": "int64",
    "nonfinite_members": "int64",
    "skipped_steps": "int64",
    "mask_flip_ratio": "float32",
}
"""Variables of every method, and their types; all begin at 0."""


class MaskOptimizer(keras.optimizers.Optimizer):
    """Train weights with `inner_optimizer` and move masks in the same step.

    One training step of `ESModel`, with this object's part in it:

    1. `population(model, x, y, sample_weight)` evaluates members, with masks from
       `step_masks(pair)`, a function of (seed, generation, pair). Nothing is stored.
    2. `update_weights`: the inner optimizer, never on weights that no member used.
    3. `learn(fitness, valid, said, ok)`: `estimate` says what the losses say of the
       masks, replicas are averaged, `update` gives new scores and new state, and the
       deployed mask follows.
    4. `move_masks(guidance, ok)`, if `scheduled`, after steps that `move_is_due` names.

    To write a method, declare its arguments by `Argument` and override what is below
    "What a method overrides". This one, which has members, moves towards the better of
    the first two:

    ```python
    @register("hill_climb")
    class HillClimb(EvolutionStrategy):
        def estimate(self, fitness, valid, said):
            sign = keras.ops.where(fitness[0] < fitness[1], 1.0, -1.0)
            noises = zip(self.scales(), self.search.noise(0))
            return [sign * scale * noise for scale, noise in noises]

        def update(self, estimate, ok):
            moved = zip(self.search.centers(), estimate)
            return [center + step for center, step in moved], []
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

    # What a method is like, by default.

    trains_by_gradients = True
    """Whether it can stand next to an optimizer of the weights."""

    evolves_weights = False
    """Whether `inner_optimizer` may be None."""

    population_size: Any = 1
    """Members of a generation; 1 is the deployed mask itself."""

    batch_mode: Any = "full"
    """"split": members share the batch out; "full": each sees all of it."""

    fitness: Any = None
    """None for the model's loss, or a function (y, y_pred) -> per-example values."""

    sparsity_schedule: Any = None
    """A `SparsitySchedule` if the number of active units falls along one."""

    magnitude_pull: Any = None
    """Share of the way to the magnitudes of units that scores go in a generation."""

    active_units: Any = None
    """`ActiveUnits` if there is such a schedule."""

    taking_turns: Any = None
    """`TurnTaking` if a generation takes several steps."""

    needs_guidance = False
    """Whether `estimate` or `move_masks` wants `unit_guidance`."""

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

    generation: Any
    __signature__: inspect.Signature

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
        # Straight into __dict__, here and below: Keras and TensorFlow would track it.
        self.__dict__["inner"] = Inner(self)
        self.check_arguments()

    # What a method overrides.

    def check_arguments(self):
        """Raise for arguments that do not go together, and settle what is open."""

    @classmethod
    def settle(cls, run):
        """Return arguments with which masks settle before a run ends.

        Args:
            run: `keras_es.optimizers.for_run.Run`, what is known of it.

        Returns:
            Dict from name of an argument to value.
        """
        return {}

    def build_search(self):
        """Create the state of the method, for `self.masked_weights`."""

    def first_scores(self):
        """Return the scores with which a falling number of active units begins."""
        if self.magnitude_pull is not None:
            return magnitudes.standardized(self.masked_weights)
        return [tf.convert_to_tensor(m.mask_scores.value) for m in self.masked_weights]

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

    def estimate(self, fitness, valid, said):
        """Return what the losses say, tensors that are averaged over replicas (pure).

        Args:
            fitness: [n] losses, lower is better.
            valid: [n] booleans, False for members that failed.
            said: List of mean `unit_guidance`, or None; in pure evolution what noise on
                outputs found.

        Returns:
            Structure of tensors, or of nothing.
        """
        return []

    def update(self, estimate, ok):
        """Return where the search goes on (pure, but for optimizers that it holds).

        Args:
            estimate: What the hook of that name returned, of all replicas.
            ok: Boolean scalar, whether any member was valid.

        Returns:
            (centers, state): new values of what is searched, or None if it stays; and a
            list of (variable, new value) of the method's own state.
        """
        return None, []

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

    def search_rests(self):
        """Return whether the members of a step are equal: False or a boolean scalar."""
        return False

    def move_is_due(self):
        """Tell whether masks move after this step, a function of the state alone."""
        raise NotImplementedError

    def move_masks(self, guidance, ok):
        """Move masks by the weights after this step.

        Args:
            guidance: List of mean `unit_guidance` over members and replicas, or [].
            ok: Boolean scalar; if False nothing may change.
        """

    def masks_decoded(self, scores, units, ok):
        """Follow the new scores and the deployed unit masks, for each weight.

        Args:
            scores: List of score tensors.
            units: List of boolean unit masks.
            ok: Boolean scalar; if False nothing may change.
        """

    def held_optimizers(self):
        """Return the Keras optimizers that the method holds besides the inner one."""
        return []

    # How many members there are, and which are whose.

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

    # What the train step calls, in this order.

    def build(self, variables):
        """Create the inner optimizer's state and that of the method."""
        if self.built:
            return
        variables = list(variables)
        self.masked_weights = [
            v.masked_weight for v in variables if hasattr(v, "masked_weight")
        ]
        for name, dtype in COUNTERS.items():
            shared = {"aggregation": "only_first_replica"}
            counter = self.add_variable((), dtype=dtype, name=name, **shared)
            self.__dict__[name] = counter
        self.inner.build(variables)
        if self.sparsity_schedule is not None:
            active = ActiveUnits(self, self.sparsity_schedule)
            self.__dict__["active_units"] = active
            active.build(self.first_scores())
        if self.magnitude_pull is not None:
            refuse_block_sparse(
                self,
                "compares the magnitudes of all units (`Falling(..., pull=...)`), and "
                "a block-sparse layer stores active ones only",
            )
        self.build_state(variables)
        super().build(variables)

    def build_state(self, variables):
        """Create what state there is besides, in the order of saved files."""
        self.build_search()

    def population(self, model, *batch):
        """Return what evaluates the members of a step.

        Args:
            model: Compiled `ESModel`.
            *batch: x, y and sample_weight.
        """
        self.check_model(model)
        return Population(model, *batch)

    def check_model(self, model):
        """Raise for a model that the optimizer was not built with."""
        own = {id(v) for v in self._trainable_variables}
        others = model.trainable_variables
        if others and not any(id(v) in own for v in others):
            raise ValueError(
                f"{type(self).__name__} holds the state of another model: each model "
                "needs an optimizer object of its own. Compile it with "
                f"{type(self).__name__}.from_config(optimizer.get_config()). "
                f"Received: optimizer={self.name!r} in model={model.name!r}"
            )

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
            mask, slots = tf.logical_and(mask, ok), self.inner.slots
            for variable in (masked.kernel, *slots.get(id(masked.kernel), ())):
                allowed[id(variable)] = mask
        self.inner.apply(gradients, variables, allowed, ok)

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

    def learn(self, fitness, valid, said, ok, compiled=lambda function: function()):
        """Move masks (and what else is searched) by what a generation said.

        Each replica searches with its own members, and the mean of their estimates
        moves the masks of all; or all are ranked together, and replicas add their sums.

        Args:
            fitness: [n] losses.
            valid: [n] booleans.
            said: See `estimate`.
            ok: Boolean scalar, whether any member was valid.
            compiled: Function that calls a function of no arguments, as the step
                compiles what has no collectives in it.
        """

        def estimated():
            return self.estimate(fitness, valid, said)

        if self.ranked_together:
            with sums_compiled_by(compiled):
                estimate = estimated()
        elif not tf.distribute.has_strategy():
            estimate = estimated()
        else:
            estimate = compiled(estimated)
            parts = mean_over_replicas(tf.nest.flatten(estimate))
            estimate = tf.nest.pack_sequence_as(estimate, parts)
        self.end_generation(estimate, ok)

    def end_generation(self, estimate, ok):
        """Move scores, deploy the masks that are decoded from them, and count."""
        scores, state = self.update(estimate, ok)
        deployment.deploy_scores(self, scores, ok)
        assign_all(state, ok)

    def unit_counts(self):
        """Return how many units of each weight are active; None for the wanted."""
        if self.active_units is None:
            return [None for _ in self.masked_weights]
        return self.active_units.now()

    def step_logs(self):
        """Return sparsity, mask_flip_ratio, nonfinite_members and skipped_steps."""
        return deployment.logs(
            self, [name for name in COUNTERS if name != "generation"]
        )

    # The contract of Keras optimizers.

    @property
    def variables(self):
        """Own variables, those of the inner optimizer, then of what else is held."""
        held = [v for o in self.held_optimizers() for v in o.variables]
        return self._variables + self.inner.variables + held

    @property
    def learning_rate(self):
        """Learning rate of the weights."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.inner.learning_rate = value

    @property
    def iterations(self):
        """Steps of the optimizer of the weights."""
        return self.inner.iterations

    @property
    def scales_loss(self):
        """Whether the loss is scaled, as float16 needs."""
        return self.inner.scales_loss

    def scale_inner_loss(self):
        """Put loss scaling around the optimizer of the weights (mixed_float16)."""
        self.inner.scale_inner_loss()

    def scale_loss(self, loss):
        """Scale the loss as the inner optimizer wants it (float16)."""
        return self.inner.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        """Let the optimizer of weights overwrite them by their average (EMA)."""
        self.inner.finalize(var_list)

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

    def get_config(self):
        """Return the arguments of the constructor."""
        return _arguments.config_of(self)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the optimizer from `get_config()`, of older versions too."""
        with keras.saving.custom_object_scope(custom_objects or {}):
            return cls(**arguments.translated(cls, config))
