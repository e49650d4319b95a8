"""`MaskOptimizer`: a Keras optimizer of the weights that also owns the masks."""

import functools
import inspect
from operator import attrgetter
from typing import Any

import keras
import tensorflow as tf

from keras_es import _arguments
from keras_es._arguments import Argument, choice, integer, optional, text
from keras_es.distribution.collectives import assign_all, replica_index
from keras_es.optimizers import (
    arguments,
    decoding,
    density,
    deployment,
    latents,
    magnitudes,
)
from keras_es.optimizers.inner import Inner
from keras_es.optimizers.search.ranking import over_replicas


class MaskOptimizer(keras.optimizers.Optimizer):
    """Train weights with `inner_optimizer` and move masks in the same step.

    One training step of `ESModel`, with this object's part in it:

    1. `population(model, x, y, sample_weight)` evaluates members, whose masks are a
       function of (seed, generation, pair).
    2. `update_weights`: the inner optimizer, never on weights that no member used.
    3. `learn(fitness, valid, said, ok)`: `estimate` says what the losses say of the
       masks, replicas are averaged, `update` gives new scores and new state, and the
       deployed mask follows.
    4. `move_masks(guidance, ok)`, if `scheduled`, after steps that `move_is_due` names.

    To write a method, declare its arguments by `Argument` and override what is below
    "What a method overrides": docs/guide.md has one in ten lines.

    Args:
        inner_optimizer: Keras optimizer of the weights, its name or config. Clipping,
            weight decay, EMA, schedules and loss scaling are set there; not
            `gradient_accumulation_steps`, which would cross from mask to mask.
        seed: Integer. Noise is a function of (seed, generation, member).
        name: Name of the optimizer.
        masked_out: "rest": a masked-out weight keeps its value; "learn": the gradient
            at the effective kernel moves it (`keras_es.optimizers.latents.Learning`).

    Raises:
        ValueError: If the inner optimizer cannot be used, or an argument is of it.
    """

    inner_optimizer = Argument(arguments.optimizer_of_weights)
    seed = Argument(integer(), 0, keyword=True)
    name = Argument(optional(text), None, keyword=True)
    masked_out = Argument(choice(*latents.KINDS), "rest", keyword=True)

    # What a method is like, by default.

    trains_by_gradients = True  # Whether it can stand next to an inner optimizer.
    evolves_weights = False  # Whether `inner_optimizer` may be None.
    population_size: Any = 1  # Members of a generation; 1 is the deployed mask itself.
    batch_mode: Any = "full"  # "split": members share the batch; else see all of it.
    # None for the model's loss, or a function (y, y_pred) -> per-example values.
    fitness: Any = None
    sparsity_schedule: Any = None  # A `SparsitySchedule` of the number of active units.
    # Share of the way to the magnitudes of units that scores go in a generation.
    magnitude_pull: Any = None
    active_units: Any = None  # `ActiveUnits` if there is such a schedule.
    taking_turns: Any = None  # `TurnTaking` if a generation takes several steps.
    needs_guidance = False  # Whether `estimate` or `move_masks` wants `unit_guidance`.
    # Whether masks move by `move_masks`, after the steps that `move_is_due` says.
    scheduled = False
    resets_slots = False  # Whether the slots of weights that come back start anew.
    grows_from_zero = False  # Whether those weights do, else they are what they were.
    # Whether the members of several replicas are one population.
    ranked_together = False
    # Whether XLA may compile members and updates as one program.
    compiled_together = True

    judges = False  # Whether members are judged by losses (see `GuidedES`).
    deployed_by: Any = decoding.Decoding  # How masks are decoded from scores.
    explore_until: Any = None  # See `latents.Learning`.

    generation: Any
    __signature__: inspect.Signature

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
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
        self.__dict__["latents"] = latents.KINDS[self.masked_out](self)
        self.check_arguments()

    # What a method overrides.

    def check_arguments(self):
        """Raise for arguments that do not go together, and settle what is open."""

    @classmethod
    def settle(cls, run):
        """Return arguments with which masks settle before a run ends.

        `run` is a `keras_es.optimizers.for_run.Run`; a dict from name to value.
        """
        return {}

    def build_search(self):
        """Create the state of the method, for `self.masked_weights`."""

    def first_scores(self):
        """Return the scores with which a falling number of active units begins."""
        if self.magnitude_pull is not None:
            return magnitudes.standardized(self.masked_weights)
        return self.pruning_scores()

    def pruning_scores(self):
        """Return the scores by which masks are pruned if a schedule left them dense."""
        return [tf.convert_to_tensor(m.mask_scores.value) for m in self.masked_weights]

    def member_masks(self, pair):
        """Return the masks of the members of one pair.

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

        g is of the kernel's shape, at active and inactive weights; w the latent kernel;
        `units` the boolean unit mask of the member, None for the deployed one.
        """
        return masked.unit_gradient(gradient, value, units)

    def search_rests(self):
        """Return whether the members of a step are equal: False or a boolean scalar."""
        return False

    def move_is_due(self):
        """Tell whether masks move after this step, a function of the state alone."""
        raise NotImplementedError

    def move_masks(self, guidance, ok):
        """Move masks by the weights and mean `unit_guidance` of this step, if `ok`."""

    def masks_decoded(self, scores, units, ok):
        """Follow the new scores and boolean unit masks of each weight, if `ok`."""

    def follow_masks(self):
        """Look where masks are now that others have set them, outside of steps."""

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
        """Return how many steps of `fit` of a model a generation takes: 1."""
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
        deployment.add_counters(self)
        self.inner.build(variables)
        self.latents.build()
        self.__dict__["active_units"] = density.begin(self)
        self.__dict__["decoding"] = decoding.begin(self)
        self.build_state(variables)
        super().build(variables)

    def build_state(self, variables):
        """Create what state there is besides, in the order of saved files."""
        self.build_search()

    def population(self, model, *batch):
        """Return what evaluates the members of a step on (x, y, sample_weight)."""
        return self.inner.population(model, *batch)

    def update_weights(self, gradients, variables, active, ok):
        """Apply the inner optimizer where it may act.

        A weight that is to rest, for no member of this step used it, keeps its value
        and its slots to the bit: stale momentum cannot move it while it is masked out.

        `gradients` has that of each of `variables`, or None; `active` the boolean union
        of the members' masks for each masked weight.
        """
        self.inner.update(gradients, variables, active, ok)

    def count_step(self, valid, ok):
        """Count the members of this step that failed, and the step if all did."""
        deployment.count(self, valid, ok)

    def learn(self, fitness, valid, said, ok, compiled=lambda function: function()):
        """Move masks (and what else is searched) by what a generation said.

        `fitness`, `valid` and `said` are as for `estimate`, `ok` tells whether any
        was valid, and `compiled` calls a function that has no collectives in it.
        """
        estimate = over_replicas(self, compiled, fitness, valid, said)
        self.end_generation(estimate, ok)

    def end_generation(self, estimate, ok):
        """Move scores, deploy the masks that are decoded from them, and count."""
        scores, state = self.update(estimate, ok)
        deployment.deploy_scores(self, scores, ok)
        assign_all(state, ok)

    def step_logs(self, frozen=()):
        """Return sparsity (with frozen masked weights), mask flips and failures."""
        return deployment.logs(self, frozen)

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

    iterations = property(attrgetter("inner.iterations"), doc="Steps so far.")
    scales_loss = property(attrgetter("inner.scales_loss"), doc="Whether it does.")

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
        arguments.refuse_apply(self)

    def get_config(self):
        """Return the arguments of the constructor."""
        return _arguments.config_of(self)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the optimizer from `get_config()`, of older versions too."""
        with keras.saving.custom_object_scope(custom_objects or {}):
            return cls(**arguments.translated(cls, config))
