"""How the deployed masks are decoded from scores, once in a generation."""

import tensorflow as tf

from keras_es.layers import groups
from keras_es.optimizers.density import unit_counts


class Decoding:
    """Each weight's best units, found anew.

    Args:
        optimizer: The `MaskOptimizer`.
    """

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def build(self):
        """Create what state it needs: none."""

    def decode(self, scores, counts):
        """Return scores, boolean unit masks, and a list of (variable, new value).

        Args:
            scores: Scores of each masked weight.
            counts: Active units of each, None for what its sparsity asks for.
        """
        weights = self.optimizer.masked_weights
        scores = groups.agreed(weights, scores)
        return scores, [m.decode(*s) for m, *s in zip(weights, scores, counts)], []

    def totals(self, counts):
        """Return the numbers of units that are exact: here those of each weight."""
        return list(counts)


class NearLast(Decoding):
    """Each weight's best units, looked for where the last threshold was.

    For masks that are decoded in every step, of scores that change little from one to
    the next. The masks are the same, for the state says only where to begin.
    """

    def build(self):
        """Create the threshold of each weight, and how dense scores are around it."""
        self.starts = [
            self.optimizer.add_variable(
                (2,), dtype="float32", name=f"threshold_{i}",
                aggregation="only_first_replica",
            )
            for i, _ in enumerate(self.optimizer.masked_weights)
        ]  # fmt: skip

    def decode(self, scores, counts):
        """Return scores, boolean unit masks, and where to look next time."""
        weights = self.optimizer.masked_weights
        scores = groups.agreed(weights, scores)
        starts = [tf.convert_to_tensor(start.value) for start in self.starts]
        units, ends = decoded_near(weights, scores, counts, starts)
        return scores, units, list(zip(self.starts, ends))


def decoded_near(weights, scores, counts, starts):
    """Return boolean unit masks and thresholds, looked for where these were.

    Args:
        weights: `MaskedWeight`s.
        scores: Scores of each, which agree within groups.
        counts: Active units of each, None for what its sparsity asks for.
        starts: Where thresholds were, with how dense scores are there.
    """
    found = [
        m.pattern.decode_near(values, m.unit_count if k is None else k, start)
        for m, values, k, start in zip(weights, scores, counts, starts)
    ]
    return [units for units, _ in found], [end for _, end in found]


def begin(optimizer):
    """Return the decoding of an optimizer that is being built.

    Raises:
        ValueError: If weights of a group cannot have one mask.
    """
    groups.check(optimizer.masked_weights)
    found = optimizer.deployed_by(optimizer)
    found.build()
    return found


def decoded(optimizer, scores, ok):
    """Return scores and unit masks of the next generation, and state of the decoding.

    Args:
        optimizer: The `MaskOptimizer`.
        scores: Its new scores.
        ok: Boolean scalar; if False the numbers of active units stay.
    """
    counts = unit_counts(optimizer)
    if optimizer.active_units is not None:
        next_step = (optimizer.generation.value + 1) * generation_steps(optimizer)
        counts = optimizer.active_units.follow(next_step, ok)
    return optimizer.decoding.decode(scores, counts)


def generation_steps(optimizer):
    """Return how many steps a generation of a built optimizer takes."""
    return 1 if optimizer.taking_turns is None else optimizer.taking_turns.steps
