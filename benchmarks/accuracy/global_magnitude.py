"""Gradual magnitude pruning with one threshold of |w| for all layers, a baseline."""

import tensorflow as tf

from keras_es.ops import selection
from keras_es.optimizers import GradualMagnitude, magnitudes
from keras_es.optimizers.decoding import Decoding


class _Together(Decoding):
    def decode(self, scores, counts):
        flat = [tf.reshape(s, (-1,)) for s in scores]
        total = tf.add_n([tf.cast(c, tf.int32) for c in counts])
        chosen = selection.top_k_mask(tf.concat(flat, 0), total)
        parts = tf.split(chosen, [part.shape[0] for part in flat])
        return scores, [tf.reshape(p, s.shape) for p, s in zip(parts, scores)], []

    def totals(self, counts):
        return [sum(counts)]


class GlobalMagnitude(GradualMagnitude):
    """Keep the units with the largest mean |w| of all layers together.

    Allocation among layers is what magnitudes make of it; only the total is given. For
    patterns whose units are of one size in all layers.
    """

    deployed_by = _Together

    def moved_masks(self, guidance):
        """Keep the largest units of all weights."""
        counts = self.active_units.at(self.steps_done())
        scores, units, _ = self.decoding.decode(
            magnitudes.sums(self.masked_weights), counts
        )
        return scores, units
