"""Evolution of Bernoulli masks with the backward pass as control variate."""

from keras import ops

from keras_es._arguments import (
    Argument,
    Refused,
    choice,
    decay,
    integer,
    optional,
    schedule,
    share,
)
from keras_es.distribution.collectives import assign_all
from keras_es.ops import search
from keras_es.optimizers.base import register
from keras_es.optimizers.score_optimizer import BernoulliStrategy


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


@register
class GuidedES(BernoulliStrategy):
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

    >>> GuidedES("adam", correction=1.0).correction
    1.0

    References:
        Gu et al. 2016, MuProp, arXiv 1511.05176; Maheswaranathan et al. 2018,
        Guided evolutionary strategies, arXiv 1806.10230; Dong, Mnih, Tucker 2020,
        arXiv 2006.10680.
    """

    needs_guidance = True
    default_score_learning_rate = 0.03

    population_size = Argument(integer(2), 2)
    batch_mode = Argument(optional(choice("split", "full")), "split")
    fitness_shaping = Refused("its guidance is in the units of the loss, as is fitness")
    sigma = Argument(schedule, 0.1)
    correction = Argument(_correction, "auto")
    guidance_momentum = Argument(decay, 0.9)

    def build_search(self):
        """Create the running mean of s for each weight."""
        super().build_search()
        self._guidance = [
            self.add_variable(
                tuple(m.mask_scores.shape),
                dtype="float32",
                name=f"guidance_{i}",
                aggregation="only_first_replica",
            )
            for i, m in enumerate(self.masked_weights)
        ]

    def budget(self):
        """Return the number of evaluations that are averaged, None for all weight."""
        if self.correction != "auto":
            return None
        return self.ranked_members / (1.0 - self.guidance_momentum)

    def search_gradient(self, fitness, valid, guidance):
        """Return the estimate for each weight, then the new s for each weight."""
        probabilities = self.probabilities()
        old = [g.value for g in self._guidance]
        both = ops.all(ops.reshape(valid, (-1, 2)), axis=1)
        losses = ops.where(valid, fitness, 0.0)
        differences = ops.where(both, losses[0::2] - losses[1::2], 0.0)
        kept = ops.cast(both, "float32")
        differences, own = self.own_pairs(differences), self.own_pairs(kept)

        def term(pair):
            samples = self.pair_samples(pair)
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
        gradient = [
            search.guided_natural(s, weight * correction, p, self.budget())
            for s, correction, p in zip(old, self.sum_over_pairs(term), probabilities)
        ]
        momentum = self.guidance_momentum
        new = [momentum * s + (1.0 - momentum) * g for s, g in zip(old, guidance)]
        return gradient + new

    def update_masks(self, search_gradient, ok):
        """Descend, and keep the running mean of s."""
        count = len(self.masked_weights)
        assign_all(zip(self._guidance, search_gradient[count:]), ok)
        return super().update_masks(search_gradient[:count], ok)
