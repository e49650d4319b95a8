"""One window of every particle: the skeleton that all estimators share."""

import tensorflow as tf

from keras_es.ops import philox
from keras_es.unrolled import batches, draws
from keras_es.unrolled.progress import Found, Progress
from keras_es.unrolled.unroll import Unroll, Unrolled, where

SIGNS = (1.0, -1.0, 0.0)
"""Of the noise in a particle's copies: the pair, and the mean where it is followed."""


class Window:
    """Unrolls particles through a window under one rule of the noise.

    Args:
        members: `Members`, probed.
        estimator: `Estimator`.
        particles: n, of this replica.
        burn_in: Whether first episodes are whole; else as much shorter as they
            would have begun later.
        outputs: Whether to keep what metrics need.
    """

    def __init__(self, members, estimator, particles, burn_in, outputs=False):
        self.members, self.rule, self.n = members, estimator, particles
        self.horizon = members.task.horizon
        self.length = estimator.window_length(self.horizon)
        self.copies = estimator.copies
        self.burn_in = burn_in
        self.unroll = Unroll(
            members, self.copies, estimator.clip, members.may_end_early, outputs
        )
        seed = estimator.seed
        self.keys = {
            name: draws.stream_key(seed, name) for name in ("starts", "episodes")
        }
        self.noise_keys = [
            draws.stream_key(seed, f"noise/{i}") for i in range(len(members.variables))
        ]

    @property
    def _scale(self):
        return 1.0 / (2.0 * self.rule.sigma * self.length)

    @property
    def _headroom(self):
        """How much larger than a loss a sum of estimates may be: ξ / σ is below 1e4."""
        return 2e4 * self.n * max(1.0, self._scale)

    @property
    def windows(self):
        """Windows in an episode of the task's horizon."""
        return self.horizon // self.length

    def starts(self, particle):
        """Return with which window of an episode each particle begins, int32 [n]."""
        if self.rule.locked:
            return tf.zeros_like(particle)
        return draws.start_windows(self.keys["starts"], particle, self.windows)

    def run(self, weights, progress, particle, data=None):
        """Unroll all particles through a window.

        Args:
            weights: List of tensors, the mean of the search.
            progress: `Progress`.
            particle: int32 [n], the particles' numbers.
            data: None or a structure of tensors [W, n, rows, ...].

        Returns:
            (new `Progress`, `Found`).
        """
        progress, due = self._next_episodes(progress)
        draw = _Draws(self, particle, progress.episode)
        horizon = draw.horizon()
        state = self._begun(weights, progress, due, draw, data)
        alive = progress.alive
        if self.rule.follows_mean:
            # Copies of a particle are n rows apart, the mean's are the last.
            state, alive = self._from_mean(state, alive)
        found, noise, products = self._segments(
            weights, progress, state, alive, draw, horizon, data
        )
        time = progress.time + self.length
        ok = tf.reduce_all(tf.math.is_finite(found.losses * self._headroom), axis=0)
        totals = progress.totals + found.losses
        living = found.alive[-1] if self.rule.follows_mean else found.alive
        over = ~living if self.rule.follows_mean else ~tf.reduce_any(living, axis=0)
        over = over | (time >= horizon)
        after = Progress(
            progress.episode, time, over | ~ok, found.alive, totals, noise, found.state
        )
        return after, self._found(found, products, ok, over, totals)

    def burn(self, weights, progress, particle):
        """Unroll particles to where they begin, in windows that nothing is learned of.

        Args:
            weights: List of tensors, at which all stays.
            progress: `Progress`.
            particle: int32 [n], the particles' numbers.

        Returns:
            `Progress`.
        """
        starts = self.starts(particle)

        def body(window, *flat):
            before = progress.packed(flat)
            after, _ = self.run(weights, before, particle)
            moves = window < starts
            joined = [
                self._chosen(moves, a, b) for a, b in zip(after.flat(), before.flat())
            ]
            return window + 1, *joined

        loop = (tf.constant(0), *progress.flat())
        last = tf.reduce_max(starts)
        _, *flat = tf.while_loop(
            lambda window, *_: window < last, body, loop, parallel_iterations=1
        )
        return progress.packed(flat)

    def _chosen(self, moves, after, before):
        """Choose the particles that move, of a tensor with rows or columns of them."""
        if after.shape[:2] == (self.copies, self.n):
            return tf.where(moves[None], after, before)
        if after.shape[0] != self.n:
            moves = tf.tile(moves, [self.copies])
        return where(moves, after, before)

    def _next_episodes(self, progress):
        """Begin the counters of episodes anew where they ended; return who did."""
        due = progress.finished
        after = Progress(
            episode=progress.episode + tf.cast(due, tf.int32),
            time=tf.where(due, 0, progress.time),
            finished=tf.zeros_like(due),
            alive=progress.alive | due,
            totals=tf.where(due, 0.0, progress.totals),
            noise=[where(due, tf.zeros_like(x), x) for x in progress.noise],
            state=progress.state,
        )
        return after, due

    def _begun(self, weights, progress, due, draw, data):
        """Return the states, with those of new episodes begun."""

        def begin():
            noise = draw.noise(progress.time, self._period)
            tiled = self.unroll.tiled
            first = None if data is None else tiled(_row(data, 0))
            seeds = tiled(draws.seeds(draw.position))
            state = self.members.initial_state(
                self._perturbed(weights, noise), seeds, first
            )
            return where(tf.tile(due, [self.copies]), state, progress.state)

        # Most windows begin no episode, and a beginning may cost more than a step.
        return tf.cond(tf.reduce_any(due), begin, lambda: progress.state)

    def _from_mean(self, state, alive):
        def mean(x):
            return tf.tile(x[-self.n :], (self.copies,) + (1,) * (x.shape.rank - 1))

        return tf.nest.map_structure(mean, state), tf.tile(alive[-1:], (self.copies, 1))

    @property
    def _period(self):
        return self.rule.period(self.horizon)

    def _segments(self, weights, progress, state, alive, draw, horizon, data):
        """Unroll all steps; return (`Unrolled`, noise ξ / σ kept, products)."""
        size = self.rule.segment(self.horizon)
        count = self.length // size
        zeros = tf.zeros([self.copies, self.n])
        start = Unrolled(state, alive, zeros, tf.zeros([self.n]), zeros)

        def segment(k, now, noise):
            t = progress.time + k * size
            fresh = self._kept(lambda: draw.noise(t, self._period), t, size)
            if self.rule.accumulates:
                due = t % self._period == 0
                noise = [where(due, x + e, x) for x, e in zip(noise, fresh)]
            members = self._perturbed(weights, fresh)
            now.difference = tf.zeros([self.n])
            now = self.unroll.run(
                members, now, size, t, horizon, draw.seeds, _slices(data, k * size)
            )
            directions = noise if self.rule.accumulates else fresh
            return now, noise, [_rows(now.difference, x) * x for x in directions]

        if count == 1:
            return segment(0, start, progress.noise)

        def body(k, fields, noise, products, kept):
            now, noise, more = segment(k, Unrolled(*fields), noise)
            products = [a + b for a, b in zip(products, more)]
            if self.unroll.outputs:
                kept = tf.nest.map_structure(
                    lambda a, x: a.write(k, x), kept, now.outputs
                )
            return k + 1, now.fields(), noise, products, kept

        products = [tf.zeros((self.n, *w.shape)) for w in weights]
        kept = self.unroll.arrays(count, size, self.copies * self.n)
        loop = (tf.constant(0), start.fields(), progress.noise, products, kept)
        _, fields, noise, products, kept = tf.while_loop(
            lambda k, *_: k < count, body, loop, parallel_iterations=1
        )
        found = Unrolled(*fields)
        if self.unroll.outputs:
            # [segments, steps, ...] -> [W, ...]
            found.outputs = tf.nest.map_structure(lambda a: a.concat(), kept)
        return found, noise, products

    def _kept(self, noise, t, steps):
        """Draw the noise of some steps, so that under XLA it is drawn once.

        A loop of steps keeps it; the loop of one or two is none to XLA, which would
        draw the noise of a kernel anew for each row that is multiplied with it.
        """
        scalars = all(len(v.shape) == 0 for v in self.members.variables)
        return noise() if steps > 2 or scalars else philox.kept(noise, t[0])

    def _perturbed(self, weights, noise):
        """Return the members' weights θ + sign σ ε, [copies * n, *shape] each."""
        sigma = self.rule.sigma
        return [
            tf.concat(
                [
                    w[None] + tf.cast(s * sigma * e, w.dtype)
                    for s in SIGNS[: self.copies]
                ],
                axis=0,
            )
            for w, e in zip(weights, noise)
        ]

    def _found(self, found, products, ok, over, totals):
        """Sum over the particles whose losses were finite."""
        gradients = [
            tf.reduce_sum(where(ok, x, tf.zeros_like(x)), axis=0) * self._scale
            for x in products
        ]
        valid = tf.reduce_sum(tf.cast(ok, tf.float32))
        ended = ok & over
        pair = slice(None, 2)
        return Found(
            gradients=gradients,
            non_finite=float(self.n) - valid,
            loss=tf.reduce_sum(tf.where(ok, found.losses[pair], 0.0)),
            steps=tf.reduce_sum(tf.where(ok, found.counted[pair], 0.0)),
            episodes=tf.reduce_sum(tf.cast(ended, tf.float32)),
            episode_loss=0.5 * tf.reduce_sum(tf.where(ended, totals[pair], 0.0)),
            outputs=None
            if found.outputs is None
            else batches.by_row(found.outputs, self.copies, self.n),
        )


class _Draws:
    """The random numbers of the episodes that particles are in."""

    def __init__(self, window, particle, episode):
        self.window, self.particle, self.episode = window, particle, episode
        self.position = draws.episode_position(
            window.keys["episodes"], particle, episode
        )

    def seeds(self, t):
        """Return the seeds of step t [n], int32 [n, 2]."""
        return draws.seeds(self.position, t)

    def horizon(self):
        """Return the episodes' lengths, int32 [n]."""
        window = self.window
        horizon = window.members.horizons(draws.seeds(self.position))
        if window.burn_in or window.rule.locked:
            return horizon
        missed = window.starts(self.particle) * window.length
        first = tf.minimum(horizon, window.horizon - missed)
        return tf.where(self.episode == 0, first, horizon)

    def noise(self, t, period):
        """Return ε / σ of step t [n] for each weight, [n, *shape]."""
        return [
            draws.perturbation(key, v.shape, self.particle, self.episode, t // period)
            for key, v in zip(self.window.noise_keys, self.window.members.variables)
        ]


def _slices(data, offset):
    if data is None:
        return None
    return lambda j: _row(data, offset + j)


def _row(data, j):
    return tf.nest.map_structure(lambda x: tf.gather(x, j), data)


def _rows(vector, like):
    """Reshape [n] to multiply each row of a tensor [n, ...]."""
    return tf.reshape(vector, (-1,) + (1,) * (like.shape.rank - 1))
