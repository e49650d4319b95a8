"""Evolution of Bernoulli masks with the backward pass as control variate."""

from keras import ops

from keras_es._arguments import (
    Argument,
    Refused,
    decay,
    integer,
    optional,
    schedule,
    share,
)
from keras_es.ops import search
from keras_es.optimizers import arguments
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.registry import Tuned, register
from keras_es.optimizers.score_optimizer import (
    build_slots,
    descended,
    optimizer_argument,
    settle_optimizer,
)
from keras_es.optimizers.search.bernoulli import BernoulliSearch, settled_bernoulli


def _correction(name, value):
    """Return "auto", a number in [0, 1] or a schedule."""
    if isinstance(value, str) and value == "auto":
        return value
    try:
        return share(name, value)
    except ValueError:
        raise ValueError(
            f'`{name}` must be "auto", a number in [0, 1] or a LearningRateSchedule of '
            f"the generation. Received: {name}={value!r}"
        ) from None


@register(
    "guided_nes",
    Tuned(
        "score_rate",
        (0.09, 0.27, 0.81),
        "score_optimizer",
        "initial_learning_rate",
        rates=(0.003, 0.01, 0.03),
    ),
)
class GuidedNES(EvolutionStrategy):
    """Natural evolution of Bernoulli masks with the backward pass as control variate.

    The backward pass that trains the weights also gives s = dL/dm = g * w at every
    unit, active or not. With a running mean s of the steps before (so that it does
    not depend on the members of this step) and antithetic pairs d = m+ - m-, the
    gradient with respect to the logits theta = (scores - tau)/T is

        grad E f = s p (1 - p) + E[(f+ - f- - s.d)/2 * d * max(p, 1 - p)]

    without bias, and the natural gradient, which moves the scores, is this over the
    Fisher information p (1 - p):

        s + c E[...] / (p (1 - p)).

    The first term alone (c = 0) is the straight-through estimate. The second corrects
    it by losses; its variance grows with the number of undecided units
    D = sum p (1 - p) and with 1/p, so by default it is shrunk to what the averaged
    evaluations N = population_size / (1 - guidance_momentum) can tell,

        s + N E[...] / (N p (1 - p) + D).

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        population_size: Even integer, members in one step.
        batch_mode: "split" or "full" (see `EvolutionStrategy`).
        fitness: None or a function (see `EvolutionStrategy`); shaping is not
            applied, for s is in the units of the loss.
        sigma: Temperature T > 0 or a schedule.
        correction: "auto" for the shrunk correction, or c in [0, 1] or a schedule of
            it; c = 1 is unbiased.
        guidance_momentum: Decay of the running mean of s, in [0, 1).
        score_optimizer: Keras optimizer of the scores; None for Adam at 0.03.
            A decay to 0 over the run (`CosineDecay(0.09, steps)`) lets masks settle.
        seed: Integer seed of the noise.
        name: Name of the optimizer.

    Example:

    >>> GuidedNES("adam", correction=1.0).correction
    1.0

    References:
        Gu et al. 2016, MuProp, arXiv 1511.05176; Maheswaranathan et al. 2018,
        Guided evolutionary strategies, arXiv 1806.10230; Dong, Mnih, Tucker 2020,
        arXiv 2006.10680.
    """

    needs_guidance = True
    default_score_learning_rate = 0.03
    mask_search, weight_search = BernoulliSearch, None
    noise = Refused("its members are Bernoulli masks, drawn by their probabilities")
    score_optimizer = optimizer_argument()
    population_size = Argument(integer(2), 2)
    batch_mode = Argument(optional(arguments.batch_mode), None)
    fitness_shaping = Refused("its guidance is in the units of the loss, as is fitness")
    sigma = Argument(schedule, 0.1)
    correction = Argument(_correction, "auto")
    guidance_momentum = Argument(decay, 0.9)

    def check_arguments(self):
        """Make the optimizer of the scores."""
        super().check_arguments()
        settle_optimizer(self, "score_optimizer", self.default_score_learning_rate)

    @classmethod
    def settle(cls, run):
        """Let scores settle, and temperatures fall, before the run ends."""
        return {**super().settle(run), **settled_bernoulli(cls, run)}

    def held_optimizers(self):
        """Return the optimizer of the scores."""
        return [self.score_optimizer]

    def build_search(self):
        """Build the optimizer of the scores; create a running mean of s."""
        build_slots(self.score_optimizer, self.search.variables)
        self._guidance = self.search.add("guidance")

    def budget(self):
        """Return the number of evaluations that are averaged, None for all weight."""
        if self.correction != "auto":
            return None
        return self.ranking.members / (1.0 - self.guidance_momentum)

    def estimate(self, fitness, valid, said):
        """Return the search gradient for each weight, and the new s for each."""
        probabilities = self.search.probabilities()
        old = [g.value for g in self._guidance]
        both = ops.all(ops.reshape(valid, (-1, 2)), axis=1)
        losses = ops.where(valid, fitness, 0.0)
        differences = ops.where(both, losses[0::2] - losses[1::2], 0.0)
        kept = ops.cast(both, "float32")
        differences = self.ranking.own_pairs(differences)
        own = self.ranking.own_pairs(kept)

        def term(pair):
            samples = self.search.pair_samples(pair)
            predicted = sum(
                ops.sum(s * (a - b)) for s, (a, b) in zip(old, samples)
            )  # fmt: skip
            residual = differences[pair] - predicted * own[pair]
            return [
                residual * search.antithetic_bernoulli(a, b, p)
                for (a, b), p in zip(samples, probabilities)
            ]

        # A number is the weight of the unshrunk correction, 1 for no bias.
        weight = 1.0 if self.correction == "auto" else self.current(self.correction)
        weight = weight / ops.maximum(ops.sum(kept), 1.0)
        corrections = self.search.sum_over_pairs(term)
        gradient = [
            search.guided_natural(s, weight * correction, p, self.budget())
            for s, correction, p in zip(old, corrections, probabilities)
        ]
        momentum = self.guidance_momentum
        new = [momentum * s + (1.0 - momentum) * g for s, g in zip(old, said)]
        return gradient, new

    def update(self, estimate, ok):
        """Descend, and keep the running mean of s."""
        gradient, guidance = estimate
        scores = self.search.variables
        new = descended(self.score_optimizer, gradient, scores, ok)
        return new or None, list(zip(self._guidance, guidance))
