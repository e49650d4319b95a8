"""Each noise rule as plain NumPy loops over particles and steps.

Only the random numbers are those of the package; episodes, sums and updates are not.
"""

import numpy as np
import tensorflow as tf

from keras_es.unrolled import draws


class Rule:
    """period: steps between draws; persistent: ξ sums them; truncated: mean's state."""

    def __init__(self, window, period, persistent=False, truncated=False):
        self.window, self.period = window, period
        self.persistent, self.truncated = persistent, truncated


class Tables:
    """The random numbers of all particles, episodes and steps, drawn at once.

    Attributes:
        noise: [particles, episodes, periods, d].
        begins: int [particles, episodes, 2], the seeds of the episodes.
        normals: [particles, episodes, 2], drawn from those.
        uniforms: [particles, episodes, steps, 2], drawn from the seeds of the steps.
    """

    def __init__(self, seed, particles, episodes, steps, shapes):
        axes = np.meshgrid(
            *(np.arange(n, dtype="int32") for n in (particles, episodes, steps)),
            indexing="ij",
        )
        particle, episode, step = (tf.constant(a.ravel()) for a in axes)
        grid = (particles, episodes, steps)

        @tf.function(autograph=False)
        def drawn():
            noise = [
                draws.perturbation(
                    draws.stream_key(seed, f"noise/{i}"), s, particle, episode, step
                )
                for i, s in enumerate(shapes)
            ]
            key = draws.stream_key(seed, "episodes")
            position = draws.episode_position(key, particle, episode)
            begins, steps = draws.seeds(position), draws.seeds(position, step)
            noise = [tf.reshape(e, (len(particle), -1)) for e in noise]
            return (
                tf.concat(noise, axis=1),
                begins,
                tf.vectorized_map(lambda s: draws.normal((2,), s), begins),
                tf.vectorized_map(lambda s: draws.uniform((2,), s), steps),
            )

        noise, begins, normals, uniforms = (
            x.numpy().reshape(*grid, -1) for x in drawn()
        )
        self.noise, self.uniforms = noise, uniforms
        self.begins, self.normals = begins[:, :, 0], normals[:, :, 0].astype("float64")


class Particle:
    """One particle: its pair of states, and the mean's for truncated strategies.

    Args:
        index: Which.
        sigma: σ.
        noise: ε / σ, array [episodes, periods, d].
        task: Has `horizon_of`, `begin` and `move`.
    """

    def __init__(self, index, sigma, noise, task):
        self.index, self.sigma, self.noise, self.task = index, sigma, noise, task
        self.episode, self.over, self.missed = -1, True, 0

    def run_window(self, theta, rule):
        """Unroll a window; return the estimate of this particle."""
        if self.over:
            self.episode += 1
            me = (self.index, self.episode)
            self.t, self.over, self.total = 0, False, 0.0
            self.horizon = self.task.horizon_of(*me)
            if self.episode == 0 and self.missed:
                self.horizon = min(self.horizon, self.task.horizon - self.missed)
            self.states = [self.task.begin(*me) for _ in range(3)]
            self.alive = [True] * 3
        if rule.truncated:
            self.states = [self.states[2]] * 3
            self.alive = [self.alive[2]] * 3
        estimate = np.zeros(len(theta))
        for _ in range(rule.window):
            noise = self.sigma * self.noise[self.episode, self.t // rule.period]
            if not rule.persistent:
                self.total = noise
            elif self.t % rule.period == 0:
                self.total = self.total + noise
            losses = [0.0] * 3
            for copy, sign in enumerate((1, -1, 0)):
                if not self.alive[copy] or self.t >= self.horizon:
                    continue
                state, loss, done = self.task.move(
                    self.states[copy], theta + sign * noise,
                    self.index, self.episode, self.t,
                )  # fmt: skip
                self.states[copy], losses[copy] = state, loss
                self.alive[copy] = not done
            estimate += (losses[0] - losses[1]) / (2 * self.sigma**2) * self.total
            self.t += 1
        living = self.alive[2] if rule.truncated else any(self.alive[:2])
        self.over = self.t >= self.horizon or not living
        return estimate / rule.window
