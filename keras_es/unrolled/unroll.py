"""The innermost loop: some steps of all members under fixed weights."""

import tensorflow as tf


class Unrolled:
    """What some steps came to.

    Attributes:
        state: Structure of tensors [copies * n, ...].
        alive: bool [copies, n]; False where `done` was returned.
        losses: float32 [copies, n], sums over the steps that count.
        difference: float32 [n], sum of the (clipped) L+ - L- of each step.
        counted: float32 [copies, n], the number of steps that count.
        outputs: None or [steps, copies * n, ...].
    """

    def __init__(self, state, alive, losses, difference, counted, outputs=None):
        self.state, self.alive, self.losses = state, alive, losses
        self.difference, self.counted, self.outputs = difference, counted, outputs

    def fields(self):
        """Return what a loop carries, in the order of the constructor."""
        return self.state, self.alive, self.losses, self.difference, self.counted


class Unroll:
    """Takes steps of all members in a `tf.while_loop`.

    Members are copies of particles: member c * n + i is copy c of particle i, and all
    copies of a particle share data and seeds.

    Args:
        members: `Members`.
        copies: Copies of each particle: 2 for a pair.
        clip: None, or the largest size of L+ - L- in one step.
        masked: Whether steps at or after a particle's horizon are to be masked.
        outputs: Whether to keep what metrics need.
    """

    def __init__(self, members, copies, clip=None, masked=False, outputs=False):
        self.members, self.copies, self.clip = members, copies, clip
        self.masked, self.outputs = masked, outputs

    def run(self, weights, start, steps, t, horizon, seeds, data):
        """Take the steps.

        Args:
            weights: List of tensors [copies * n, *shape].
            start: `Unrolled`, where to go on (sums are added to).
            steps: Python integer.
            t: int32 [n], the step of the episode that comes next.
            horizon: int32 [n], the episodes' lengths.
            seeds: Function from t to int32 [n, 2].
            data: None, or a function from the number of the step to a structure of
                tensors [n, rows, ...].

        Returns:
            `Unrolled`.
        """
        copies, n = start.alive.shape

        # A function, to be traced once though the body calls it twice.
        @tf.function(autograph=False)
        def step(j, weights, state, alive, sums, t, horizon, seeds, rows):
            now = t + j
            new, loss, done, outputs = self.members.step(
                weights,
                state,
                self.tiled(now),
                self.tiled(seeds),
                None if data is None else self.tiled(rows),
            )
            loss = tf.reshape(loss, alive.shape)
            on = alive & (now < horizon) if self.masked else None
            if on is not None:
                loss = tf.where(on, loss, 0.0)
                new = where(tf.reshape(on, [-1]), new, state)
            if done is not None:
                alive = alive & ~(on & tf.reshape(done, alive.shape))
            more = [loss, self._difference(loss)[None]]
            if on is not None:
                more.append(tf.cast(on, tf.float32))
            # What is added up is one tensor, for which XLA makes one kernel.
            return new, alive, sums + tf.concat(more, axis=0), outputs

        together = _steps_together(start.state, steps)

        def body(j, state, alive, sums, kept):
            for i in range(together):
                state, alive, sums, outputs = step(
                    j + i, weights, state, alive, sums, t, horizon, seeds(t + j + i),
                    () if data is None else data(j + i),
                )  # fmt: skip
                if self.outputs:
                    at = j + i
                    kept = tf.nest.map_structure(
                        lambda a, o, at=at: a.write(at, o), kept, outputs
                    )
            return j + together, state, alive, sums, kept

        kept = self.arrays(steps, copies * n)
        sums = [start.losses, start.difference[None]]
        if self.masked:
            sums.append(start.counted)
        loop = (
            tf.constant(0), start.state, start.alive, tf.concat(sums, axis=0), kept
        )  # fmt: skip
        _, state, alive, sums, kept = tf.while_loop(
            lambda j, *_: j < steps, body, loop, parallel_iterations=1
        )
        result = Unrolled(
            state,
            alive,
            losses=sums[:copies],
            difference=sums[copies],
            counted=sums[copies + 1 :] if self.masked else start.counted + float(steps),
        )
        if self.outputs:
            result.outputs = tf.nest.map_structure(lambda a: a.stack(), kept)
        return result

    def _difference(self, loss):
        if self.copies == 1:
            return tf.zeros_like(loss[0])
        difference = loss[0] - loss[1]
        if self.clip is not None:
            difference = tf.clip_by_value(difference, -self.clip, self.clip)
        return difference

    def arrays(self, count, *leading):
        """Return empty arrays for the members' outputs, or ().

        Args:
            count: How many elements they get.
            *leading: First axes of an element, before one member's output.
        """
        if not self.outputs:
            return ()
        return tf.nest.map_structure(
            lambda s: tf.TensorArray(
                s.dtype, count, element_shape=(*leading, *s.shape[1:])
            ),
            self.members.output_spec,
        )

    def tiled(self, structure):
        """Repeat particles' tensors [n, ...] for each copy."""
        return tf.nest.map_structure(
            lambda x: tf.tile(x, (self.copies,) + (1,) * (x.shape.rank - 1)), structure
        )


def _steps_together(state, steps):
    """Return how many steps the body of the loop has: 1 or 2.

    Where a state is a few scalars, XLA fuses two steps to one kernel for each of them,
    and half as many are started. Larger states are stored between the steps all the
    same, and of many scalars each kernel would compute the first step again.
    """
    leaves = tf.nest.flatten(state)
    scalars = all(leaf.shape.rank == 1 for leaf in leaves)
    return 2 if scalars and len(leaves) <= 8 and steps % 2 == 0 else 1


def where(condition, new, old):
    """Choose rows: `tf.where` of structures by a condition on the first axis."""

    def chosen(a, b):
        shape = (-1,) + (1,) * (a.shape.rank - 1)
        return tf.where(tf.reshape(condition, shape), a, b)

    return tf.nest.map_structure(chosen, new, old)
