"""`BernoulliSearch`: a search of independent Bernoulli masks."""

import keras
from keras import ops

from keras_es.distribution.collectives import assign_all
from keras_es.layers import groups
from keras_es.ops import noise, philox, search
from keras_es.optimizers.score_optimizer import that_settles
from keras_es.optimizers.search.masks import MaskSearch


class BernoulliSearch(MaskSearch):
    """Masks m ~ Bernoulli(p), p = sigmoid((scores - tau)/T).

    tau is calibrated so that the expected number of active units is that of the
    deployed mask, which is the exact top-k of the scores. The strategy's `sigma` is
    the temperature T.
    """

    def prepare(self):
        """Create tau for each weight, calibrated to the first scores."""
        self.shifts = [
            self.strategy.add_variable(
                (),
                initializer=_FirstShift(self.strategy, masked),
                dtype="float32",
                name=f"shift_{i}",
                aggregation="only_first_replica",
            )
            for i, masked in enumerate(self.masked)
        ]

    def temperature(self):
        """Return T, kept above 1e-4 where it is divided by."""
        sigma = self.strategy.current(self.strategy.sigma)
        return ops.maximum(ops.cast(sigma, "float32"), 1e-4)

    def probabilities(self):
        """Return p of every unit, for each weight."""
        temperature = self.temperature()
        return [
            ops.sigmoid((m.mask_scores.value - shift.value) / temperature)
            for m, shift in zip(self.masked, self.shifts)
        ]

    def uniforms(self, pair):
        """Return uniform noise of one pair for each weight."""
        # Kept: XLA would make the bits anew for each member, which takes three times
        # as long.
        return philox.kept(
            lambda: self.draw(noise.uniform, pair), self.strategy.generation.value
        )

    def member_masks(self, pair):
        """Return m+ = [u < p] and m- = [1 - u < p], both Bernoulli(p)."""
        uniforms = groups.of_the_first(self.masked, self.uniforms(pair))
        drawn = list(zip(uniforms, self.probabilities()))
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
            self.masked, self.shifts, scores, units
        ):
            # Scores may have moved by many temperatures: two places to start from.
            starts = [shift.value, _threshold(value, chosen)]
            count = masked.unit_count
            if self.strategy.active_units is not None:
                count = ops.sum(ops.cast(chosen, "float32"))
            new = search.calibrate_shift(value, temperature, starts, count)
            shifts.append((shift, new))
        assign_all(shifts, ok)


def settled_bernoulli(cls, run):
    """Return arguments with which scores of a run come to rest (see `settle`)."""
    arguments, generations = {}, run.generations
    if run.dense:
        generations = run.searched
        if "sigma" not in run.given:
            # Not a slope: at a lower T a step of the scores would flip more units.
            arguments["sigma"] = keras.optimizers.schedules.PiecewiseConstantDecay(
                [generations - 1], [run.default.sigma, 0.0]
            )
    # A decay from three times the constant rate moves scores about as far.
    rate = 3.0 * cls.default_score_learning_rate
    scores = that_settles(rate, generations)
    return {**arguments, "score_optimizer": scores}


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
