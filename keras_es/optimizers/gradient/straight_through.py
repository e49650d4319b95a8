"""Masks by the gradient as if decoding were the identity."""

from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.registry import Tuned, register
from keras_es.optimizers.score_optimizer import (
    build_slots,
    descended,
    optimizer_argument,
    settle_optimizer,
    that_settles,
)


@register(
    "straight_through",
    Tuned(
        "score_rate",
        (0.01, 0.03, 0.1),
        "score_optimizer",
        "initial_learning_rate",
        rates=(0.003, 0.01, 0.03),
    ),
)
class StraightThrough(MaskOptimizer):
    """Straight-through estimation: top-k of the scores, trained by dL/dm.

    The mask m = decode(scores) has no useful derivative; the backward pass takes the
    identity for it,

        dL/dscores := dL/dm = sum of g * w over each unit, active or not,

    with g the gradient at the effective kernel. It is biased, and its variance is low:
    the method to beat for single weights. It judges a masked-out weight by the value
    at which it rests: one of the wrong sign stays out, though it could be trained.
    The mask moves after every step. A weight that comes back is where it was, and its
    slots start anew.

    Args:
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`).
        score_optimizer: Keras optimizer of the scores, its name or config; None for
            Adam at 0.003. A decay to 0 over the run, `Adam(CosineDecay(0.01, steps))`,
            lets masks settle.
        seed: Not used by this method; kept so that methods exchange freely.
        name: Name of the optimizer.

    Example:

    >>> round(float(StraightThrough("adam").score_optimizer.learning_rate), 4)
    0.003

    References:
        Bengio, Leonard, Courville 2013, arXiv 1308.3432; Ramanujan et al. 2020, What's
        hidden in a randomly weighted neural network?, arXiv 1911.13299.
    """

    score_optimizer = optimizer_argument()
    default_score_learning_rate = 0.003

    needs_guidance = True
    resets_slots = True

    def check_arguments(self):
        """Make the optimizer of the scores."""
        settle_optimizer(self, "score_optimizer", self.default_score_learning_rate)

    @classmethod
    def settle(cls, run):
        """Let the learning rate of the scores fall to 0 by the end."""
        # A decay from three times the constant rate moves scores about as far.
        rate = 3.0 * cls.default_score_learning_rate
        return {"score_optimizer": that_settles(rate, run.generations)}

    @property
    def scores(self):
        """The score variables."""
        return [m.mask_scores for m in self.masked_weights]

    def held_optimizers(self):
        """Return the optimizer of the scores."""
        return [self.score_optimizer]

    def build_search(self):
        """Build the optimizer of the scores."""
        build_slots(self.score_optimizer, self.scores)

    def estimate(self, fitness, valid, said):
        """Return dL/dm."""
        return said

    def update(self, estimate, ok):
        """Descend dL/dm with the score optimizer."""
        if not self.scores:
            return None, []
        new = descended(self.score_optimizer, estimate, self.scores, ok)
        return new, []
