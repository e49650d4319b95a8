"""Strategies that hand a search gradient to an ordinary Keras optimizer of scores."""

import keras
from keras import ops

from keras_es import _compat
from keras_es._arguments import Argument, Refused, optional
from keras_es.distribution.collectives import assign_all
from keras_es.ops import noise, philox, search
from keras_es.optimizers import arguments
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.guarded import guarded_apply
from keras_es.optimizers.search.weights import as_gradients


class ScoreGradient:
    """Mixin of optimizers whose scores are moved by `score_optimizer`.

    Put it before `MaskOptimizer` or a class derived from that. `search_gradient` has to
    return the gradient of the scores of each weight.

    In pure evolution a subclass moves the weights (see `OpenES`).

    Args:
        score_optimizer: Keras optimizer of the mask scores, its name or config; None
            for Adam at `default_score_learning_rate`.
    """

    evolves_weights = False
    default_score_learning_rate = 0.003

    score_optimizer = Argument(optional(arguments.keras_optimizer), None)

    def check_arguments(self):
        """Make the optimizer of the scores; it must not be that of the weights."""
        super().check_arguments()
        if self.score_optimizer is None:
            rate = self.default_score_learning_rate
            self.score_optimizer = keras.optimizers.Adam(rate)
        self.refuse_shared("inner_optimizer", self.inner_optimizer)

    def refuse_shared(self, name, optimizer):
        """Raise if an optimizer is that of the scores too."""
        if self.score_optimizer is optimizer:
            raise ValueError(
                f"`score_optimizer` must be another object than `{name}`: "
                "each holds the state of its own variables. "
                f"Received: score_optimizer={self.score_optimizer.name!r} for both"
            )

    @property
    def moving_scores(self):
        """The score variables that `score_optimizer` moves."""
        masked = self.space.masked if self.pure else self.masked_weights
        return [m.mask_scores for m in masked]

    def build_search(self):
        """Build the optimizer of the scores."""
        if self.moving_scores:
            _compat.record_slots(self.score_optimizer, self.moving_scores)

    @property
    def variables(self):
        """Own variables, the inner optimizer's, then the score optimizer's."""
        return super().variables + self.score_optimizer.variables

    def update_masks(self, search_gradient, ok):
        """Descend the search gradient with the score optimizer."""
        scores = self.moving_scores
        if not scores:
            return None
        guarded_apply(
            self.score_optimizer, as_gradients(search_gradient), scores, {}, ok
        )
        return [s.value for s in scores]


class ScoreGradientStrategy(ScoreGradient, EvolutionStrategy):
    """Base of evolution strategies whose scores are moved by `score_optimizer`."""


class BernoulliStrategy(ScoreGradientStrategy):
    """Base of strategies with independent Bernoulli masks.

    p = sigmoid((scores - tau)/T); tau is calibrated so that the expected number of
    active units is that of the deployed mask, which is the exact top-k of the scores.
    `sigma` is the temperature T.
    """

    inner_optimizer = Argument(arguments.optimizer_of_weights)
    noise = Refused("its members are Bernoulli masks, drawn by their probabilities")

    def build_search(self):
        """Create tau for each weight, calibrated to the first scores."""
        super().build_search()
        self._shifts = [
            self.add_variable(
                (),
                initializer=_FirstShift(self, masked),
                dtype="float32",
                name=f"shift_{i}",
                aggregation="only_first_replica",
            )
            for i, masked in enumerate(self.masked_weights)
        ]

    def temperature(self):
        """Return T, kept above 1e-4 where it is divided by."""
        return ops.maximum(ops.cast(self.current(self.sigma), "float32"), 1e-4)

    def probabilities(self):
        """Return p of every unit, for each weight."""
        temperature = self.temperature()
        return [
            ops.sigmoid((m.mask_scores.value - shift.value) / temperature)
            for m, shift in zip(self.masked_weights, self._shifts)
        ]

    def uniforms(self, pair):
        """Return uniform noise of one pair for each weight."""
        # Kept: XLA would make the bits anew for each member, which takes three times
        # as long.
        return philox.kept(
            lambda: self.draw(noise.uniform, pair), self.generation.value
        )

    def member_masks(self, pair):
        """Return m+ = [u < p] and m- = [1 - u < p], both Bernoulli(p)."""
        drawn = list(zip(self.uniforms(pair), self.probabilities()))
        return [[u < p for u, p in drawn], [1.0 - u < p for u, p in drawn]]

    def pair_samples(self, pair):
        """Return the two samples of a pair as floats, for each weight."""
        first, second = self.member_masks(pair)
        return [
            (ops.cast(a, "float32"), ops.cast(b, "float32"))
            for a, b in zip(first, second)
        ]

    def masks_decoded(self, scores, units, ok):
        """Calibrate tau to the new scores."""
        temperature = self.temperature()
        shifts = []
        for masked, shift, value, chosen in zip(
            self.masked_weights, self._shifts, scores, units
        ):
            # Scores may have moved by many temperatures: two places to start from.
            starts = [shift.value, _threshold(value, chosen)]
            count = masked.unit_count
            if self.active_units is not None:
                count = ops.sum(ops.cast(chosen, "float32"))
            new = search.calibrate_shift(value, temperature, starts, count)
            shifts.append((shift, new))
        assign_all(shifts, ok)


class _FirstShift:
    """Initializer of tau: Newton steps from the scores as the layer made them."""

    def __init__(self, strategy, masked):
        self.strategy, self.masked = strategy, masked

    def __call__(self, shape, dtype=None):
        sigma = self.strategy.sigma
        start = sigma if isinstance(sigma, float) else sigma(0)
        scores = self.masked.mask_scores.value
        chosen = self.masked.stored_units()
        return search.calibrate_shift(
            scores,
            ops.maximum(ops.cast(start, "float32"), 1e-4),
            [_threshold(scores, chosen)],
            ops.sum(ops.cast(chosen, "float32")),
            iterations=8,
        )


def _threshold(scores, chosen):
    """Return the smallest chosen score, which is tau at T = 0."""
    return ops.min(ops.where(chosen, scores, float("inf")))
