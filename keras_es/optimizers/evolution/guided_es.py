"""Evolution of the criterion by which masks are chosen; gradients guide the weights."""

import keras
import tensorflow as tf

from keras_es import schedules
from keras_es._arguments import (
    Argument,
    boolean,
    choice,
    integer,
    optional,
    schedule,
    share,
)
from keras_es.distribution.collectives import mean_over_replicas, replica_index
from keras_es.optimizers import arguments, latents, magnitudes
from keras_es.optimizers.arguments import value_at
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.density import refuse_block_sparse
from keras_es.optimizers.evolution.guided_nes import GuidedNES
from keras_es.optimizers.registry import Tuned, register
from keras_es.optimizers.search.costs import Costs
from keras_es.optimizers.search.criterion import ByCriterion, CriterionSearch
from keras_es.populations.judged import JudgedPopulation

SPARSE = 0.5
"""Share of a run after which a network that began dense is as sparse as wanted, and
units that are masked out no longer overtake others all the time."""

SEARCHED = 0.75
"""Share of a run in which the criterion moves."""

OF_GUIDED_NES = (
    "population_size",
    "batch_mode",
    "correction",
    "guidance_momentum",
    "score_optimizer",
    "turns",
    "density",
    "semi_updates",
)
"""Arguments of `GuidedNES`, which had the name `GuidedES` before."""


@register(
    "guided_es",
    Tuned(
        "criterion_rate",
        (0.03, 0.1, 0.3),
        "mean_learning_rate",
        "initial_learning_rate",
        rates=(0.003, 0.005, 0.01),
    ),
)
# The name that it had in files at first; `register` gives it the one it has now.
@keras.saving.register_keras_serializable(package="keras_es", name="CriterionES")
class GuidedES(MaskOptimizer):
    r"""Evolve the criterion, not the mask: a few numbers, which losses can tell.

    The default of the package. Gradients say which weights of a layer are worth
    keeping, for masked-out weights learn too; losses say how many each layer needs.
    Weight l has the k_l largest of its units i by

        c_i = sum |w| (v + eps)**(gamma_l / 2),    k_l = x exp(a_l) k0_l,

    chosen anew after every step. k0_l is what the allocation asks for, and x such that
    the total stays what it was, exactly: at a = 0, where the search begins, each
    weight has k0_l units, the largest by magnitude, and a moves units from weight to
    weight. (Weights whose units are of a size that no other's have, and `NByM`, keep to
    the allocation each: no exchange of such units would leave the number of non-zeros
    as it is. But see `costs`.) v is Adam's second moment, divided by its mean, so that
    gamma = 0 is magnitude and gamma = 1 what a diagonal Fisher matrix says of each
    weight.

    Every `judge_every` steps members a +- sigma z (and gamma) are judged, on a batch
    that no weight was trained on yet, by forward passes only. With d = (f+ - f-)/2 and
    r its running root mean square,

        a <- (1 - pull) a - eta d z / r.

    Weights are trained by gradients under the deployed mask in every step, with all of
    the batch. As default masked-out weights learn too (`masked_out="learn"`): they come
    back, with a trained value, once they are among the largest.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        sparsity_schedule: A `keras_es.schedules.SparsitySchedule`; None for
            `ConstantSparsity()`, as sparse as wanted from the first step.
        judge_every: Integer of at least 1, steps from one judgement to the next.
        judged_pairs: Integer of at least 1, antithetic pairs in each.
        fitness: None for the model's loss, or a function (y, y_pred) -> per-example
            values (lower is better) that need not be differentiable. Weights are always
            trained on the model's loss.
        sigma: Scale of the noise of the genes, or a schedule of the step.
        mean_learning_rate: eta, or a schedule of the step; 0 leaves the criterion.
        pull: Share of the way back to a = gamma = 0 in each judgement, in [0, 1].
        moments: Whether gamma is searched; else it is 0. Without Adam's second moments
            there is none.
        seed: Integer seed of the noise.
        name: Name of the optimizer.
        costs: None, or a dict from layer path, weight path or regular expression to
            what one active weight costs there, a number above 0; 1 where no rule
            matches, the last where more do. Paths are those of `sparsity_report`, or
            the end of one if no whole path matches. Then the cost of all active weights
            stays what the allocation asks for, and not their number: never above, and
            below by less than a unit of the cheapest weight unless that is full. With
            `keras_es.multiplications_per_weight(model)` it is the number of
            multiplications. Weights whose units differ in size exchange, too; `NByM`
            and patterns of groups do not.
        masked_out: "learn" or "rest" (see `MaskOptimizer`).
        explore_until: Steps in which the share of an update that a masked-out weight
            gets goes from 1 down to 1/sqrt(s), s the number of weights of its unit, so
            that units overtake each other while masks are looked for; None for
            1/sqrt(s) from the first step on. `for_run` sets it.

    Raises:
        ValueError: If an argument is out of range or of `GuidedNES`, or if a layer
            stores active blocks only, so that nothing is known of the size of others.

    Example:

    >>> GuidedES("adam", judge_every=10).masked_out
    'learn'

    References:
        Salimans et al. 2017, Evolution strategies, arXiv 1703.03864, for the estimate;
        LeCun, Denker, Solla 1990, Optimal brain damage, for the criterion; and
        `keras_es.optimizers.latents.Learning` for weights that learn.
    """

    resets_slots = True
    judges = True
    now_of = dict.fromkeys(OF_GUIDED_NES, "GuidedNES")
    deployed_by = ByCriterion
    model = staticmethod(lambda: None)
    """Returns the model that was compiled with it, whose paths `costs` has, or None."""

    sparsity_schedule = Argument(
        optional(lambda n, v: schedules.get(n, v, schedules.SparsitySchedule)), None
    )
    judge_every = Argument(integer(1), 5)
    judged_pairs = Argument(integer(1), 1)
    fitness = Argument(
        optional(arguments.function), None, serialize=arguments.serialize_function
    )
    sigma = Argument(schedule, 0.2)
    mean_learning_rate = Argument(schedule, 0.1)
    pull = Argument(share, 0.01)
    moments = Argument(boolean, False)
    costs = Argument(optional(arguments.costs), None, keyword=True)
    masked_out = Argument(choice(*latents.KINDS), "learn", keyword=True)
    explore_until = Argument(optional(integer(1)), None, keyword=True)

    def check_arguments(self):
        """Make the search; without a schedule masks are sparse from the first step."""
        if self.masked_out == "rest" and self.explore_until is not None:
            raise ValueError(
                "`explore_until` says how masked-out weights learn: use "
                'masked_out="learn", or leave it out. '
                f"Received: explore_until={self.explore_until}"
            )
        self.__dict__["search"] = CriterionSearch(self, self.moments)
        if self.sparsity_schedule is None:
            self.sparsity_schedule = schedules.ConstantSparsity()

    @classmethod
    def settle(cls, run):
        """Let the criterion settle, and a dense beginning end, before the run does."""
        steps = max(1, int(SEARCHED * run.steps))
        decays = keras.optimizers.schedules
        rate = decays.PolynomialDecay(run.default.mean_learning_rate, steps, 0.0)
        half = max(1, int(SPARSE * run.steps))
        arguments = {"mean_learning_rate": rate}
        if run.default.masked_out == "learn":
            arguments["explore_until"] = half
        if run.dense:
            arguments["sparsity_schedule"] = schedules.PolynomialSparsity(half)
        return arguments

    def first_scores(self):
        """Return the sums of |w|."""
        return magnitudes.sums(self.masked_weights)

    def pruning_scores(self):
        """Return the sums of |w|, of which the criterion makes its own."""
        return magnitudes.sums(self.masked_weights)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the optimizer, or the `GuidedNES` that had this name in older files."""
        if any(name in config for name in OF_GUIDED_NES):
            return GuidedNES.from_config(config, custom_objects)
        return super().from_config(config, custom_objects)

    def build_search(self):
        """Create the genes."""
        refuse_block_sparse(
            self,
            "compares the sizes of all units, and a block-sparse layer stores active "
            "ones only",
        )
        self.search.build()

    def cost_of(self, masked):
        """Return what an active weight costs, and None if its number alone counts."""
        if self.costs is None:
            return None
        made = self.search.costs if self.built else None
        return (made or Costs(self.costs, [masked], self.model())).of(masked)

    def current(self, value):
        """Return a hyperparameter now: a number, or a schedule of the step."""
        return value_at(value, self.generation.value)

    def update(self, estimate, ok):
        """Decide masks anew after every step; the criterion makes the scores."""
        return [m.mask_scores.value for m in self.masked_weights], []

    def judgement_is_due(self):
        """Tell whether members are judged before this step."""
        step = self.generation.value
        moves = self.current(self.mean_learning_rate) > 0.0
        due = tf.equal(step % self.judge_every, self.judge_every - 1)
        return tf.logical_and(due, moves)

    def judged(self, model, *batch):
        """Return the fitness of members on a batch, and which of them are valid."""
        population = JudgedPopulation(model, *batch)
        return population.judge(self.search.member, 2 * self.judged_pairs)

    def move_criterion(self, fitness, valid):
        """Move the genes by what members said, of all replicas."""
        estimate, square = mean_over_replicas(self.search.estimate(fitness, valid))
        self.search.move(estimate, square)

    def global_pair(self, pair):
        """Return the index of a pair among those of all replicas, for its noise."""
        return pair + replica_index() * self.judged_pairs
