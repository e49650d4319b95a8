"""Where particles stand between windows, and what a window found."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass
class Progress:
    """Where n particles stand between two windows; all that is stored of them.

    Attributes:
        episode: int32 [n], -1 before the first.
        time: int32 [n], the step of the episode that comes next.
        finished: bool [n], whether another episode begins in the next window.
        alive: bool [copies, n], False where `done` was returned.
        totals: float32 [copies, n], sums of the episode's losses.
        noise: List of float32 [n, *shape], the sums ξ / σ of an estimator that
            accumulates, else empty.
        state: Structure of tensors [copies * n, ...].
    """

    episode: object
    time: object
    finished: object
    alive: object
    totals: object
    noise: list
    state: object

    def flat(self):
        """Return all tensors in a fixed order."""
        return tf.nest.flatten(list(vars(self).values()))

    def packed(self, tensors):
        """Return a `Progress` of tensors in the order of `flat`."""
        values = tf.nest.pack_sequence_as(list(vars(self).values()), list(tensors))
        return Progress(*values)

    @classmethod
    def spec(cls, particles, copies, noise, state):
        """Return the `Progress` of `tf.TensorSpec`, named.

        Args:
            particles: n.
            copies: States of each particle.
            noise: List of the shapes of what is accumulated.
            state: Structure of specs of one particle's state.
        """
        n = particles

        def rows(spec):
            return tf.TensorSpec((copies * n, *spec.shape), spec.dtype)

        return cls(
            episode=tf.TensorSpec((n,), tf.int32),
            time=tf.TensorSpec((n,), tf.int32),
            finished=tf.TensorSpec((n,), tf.bool),
            alive=tf.TensorSpec((copies, n), tf.bool),
            totals=tf.TensorSpec((copies, n), tf.float32),
            noise=[tf.TensorSpec((n, *shape), tf.float32) for shape in noise],
            state=tf.nest.map_structure(rows, state),
        )


@dataclasses.dataclass
class Found:
    """What a window found: sums over particles, which replicas may add.

    Attributes:
        gradients: List of float32 tensors, sums over the valid particles.
        non_finite: Number of the others.
        loss: Sum of the losses of both members over the valid particles.
        steps: Number of the losses in it.
        episodes: Number of valid particles whose episode ended.
        episode_loss: Sum over those of the pair's mean sum of losses.
        outputs: None or [copies * n * rows, steps, ...]; not summed.
    """

    gradients: list
    non_finite: object
    loss: object
    steps: object
    episodes: object
    episode_loss: object
    outputs: object = None
