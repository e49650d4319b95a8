"""Unrolls without noise: what `evaluate` shows."""

import tensorflow as tf

from keras_es.unrolled import batches, draws
from keras_es.unrolled.progress import Found
from keras_es.unrolled.unroll import Unroll, Unrolled


class Evaluation:
    """Unrolls a task from its initial state under given weights.

    Args:
        members: `Members`, probed.
        count: Number of episodes or sequences at once.
        outputs: Whether to keep what metrics need.
        seed: Integer, the estimator's; the episodes are others than in training.
    """

    def __init__(self, members, count, outputs, seed):
        self.members, self.count = members, count
        self.outputs = outputs and members.output_spec is not None
        self.key = draws.stream_key(seed, "evaluation")

    def run(self, weights, particle, index, data=None):
        """Unroll; return `Found`.

        Args:
            weights: List of tensors.
            particle: int32 [count].
            index: Integer scalar, another one for other episodes.
            data: None, or a structure of tensors [steps, count, rows, ...].
        """
        m = self.count
        position = draws.episode_position(self.key, particle, tf.fill([m], index))
        seeds = draws.seeds(position)
        tiled = [tf.broadcast_to(w, (m, *w.shape)) for w in weights]
        steps, horizon = self.members.task.horizon, self.members.horizons(seeds)
        masked = self.members.may_end_early
        if data is not None:  # Sequences end where they end.
            steps = tf.nest.flatten(data)[0].shape[0]
            horizon, masked = tf.fill([m], steps), self.members.returns_done

        def row(j):
            return tf.nest.map_structure(lambda x: tf.gather(x, j), data)

        state = self.members.initial_state(
            tiled, seeds, None if data is None else row(0)
        )
        zeros = tf.zeros([1, m])
        start = Unrolled(state, tf.ones([1, m], tf.bool), zeros, zeros[0], zeros)
        found = Unroll(self.members, 1, masked=masked, outputs=self.outputs).run(
            tiled, start, steps, tf.zeros([m], tf.int32), horizon,
            lambda t: draws.seeds(position, t), None if data is None else row,
        )  # fmt: skip
        ok = tf.math.is_finite(found.losses)
        valid = tf.reduce_sum(tf.cast(ok, tf.float32))
        loss = tf.reduce_sum(tf.where(ok, found.losses, 0.0))
        return Found(
            gradients=[],
            non_finite=float(m) - valid,
            loss=loss,
            steps=tf.reduce_sum(tf.where(ok, found.counted, 0.0)),
            episodes=valid,
            episode_loss=loss,
            outputs=None
            if found.outputs is None
            else batches.by_row(found.outputs, 1, m),
        )
