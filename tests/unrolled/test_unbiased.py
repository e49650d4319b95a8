"""Each estimator against the gradient of its own smoothed loss, in closed form.

For s_t = Σ θ and L_t = s_t³ under noise with variance v_t of the sum,
d/dθ E[L_t] = 3 n³ θ² + 3 n v_t with n = t + 1.
"""

import numpy as np
import pytest
import tensorflow as tf

from keras_es import unrolled
from tests.unrolled.common import Powers, gradients

T, W, THETA, SIGMA, N = 8, 4, 0.5, 0.3, 4000
EPISODES = 12


def truth(period, steps=range(T)):
    """Gradient of the loss smoothed by noise that changes every `period` steps."""
    total = []
    for t in steps:
        counts = np.bincount(np.arange(t + 1) // period)
        variance = SIGMA**2 * np.sum(counts.astype(float) ** 2)
        total.append(3 * (t + 1) ** 3 * THETA**2 + 3 * (t + 1) * variance)
    return np.mean(total)


def truncated_truth():
    """Of noise that begins with each window, at the unperturbed state."""
    total = []
    for t in range(T):
        j = t % W + 1
        total.append(3 * j * (((t + 1) * THETA) ** 2 + (j * SIGMA) ** 2))
    return np.mean(total)


def common(**kwargs):
    options = dict(particles=N, unroll_length=W, sigma=SIGMA, seed=3, locked=True)
    return options | kwargs


CASES = {
    "NRES": (lambda **k: unrolled.NRES("sgd", **common(**k)), truth(T)),
    "GPES_6": (lambda **k: unrolled.GPES("sgd", period=6, **common(**k)), truth(6)),
    "GPES_2": (lambda **k: unrolled.GPES("sgd", period=2, **common(**k)), truth(2)),
    "PES": (lambda **k: unrolled.PES("sgd", **common(**k)), truth(1)),
    "PES_W": (lambda **k: unrolled.PES("sgd", noise="window", **common(**k)), truth(W)),
    "FullES": (
        lambda **k: unrolled.FullES("sgd", particles=N, sigma=SIGMA, seed=3),
        truth(T),
    ),
    "TruncatedES": (
        lambda **k: unrolled.TruncatedES("sgd", **common(**k)),
        truncated_truth(),
    ),
}


def episodes(rows, windows=T // W):
    """Average over the windows of an episode: those means are independent."""
    return rows.reshape(-1, windows).mean(axis=1)


def assert_within_five_errors(values, expected):
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) < 5 * error, (values.mean(), expected, error)


@pytest.fixture(scope="module")
def estimates():
    """The gradient of every window, by estimator."""
    found = {}
    for name, (make, _) in CASES.items():
        windows = EPISODES if name == "FullES" else EPISODES * T // W
        found[name] = gradients(Powers(theta=THETA), make(), windows)[:, 0]
    return found


@pytest.mark.parametrize("name", list(CASES))
def test_estimators_are_unbiased_for_their_own_smoothed_loss(name, estimates):
    values = estimates[name]
    values = values if name == "FullES" else episodes(values)
    assert_within_five_errors(values, CASES[name][1])


def test_each_period_estimates_another_loss(estimates):
    for name, other in (("NRES", "PES"), ("NRES", "GPES_2"), ("TruncatedES", "NRES")):
        values = episodes(estimates[name])
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - CASES[other][1]) > 5 * error, (name, other)


class Forgetting(unrolled.Task):
    """Many weights, and a state that forgets them."""

    horizon = 32

    def build(self):
        self.weights_ = self.add_weight(shape=(20,), initializer="zeros")

    def initial_state(self, seed, data=None):
        return tf.zeros(())

    def step(self, state, t, seed, data=None):
        state = 0.5 * state + tf.reduce_sum(self.weights_)
        return state, state


def test_variance_grows_as_noise_is_drawn_more_often():
    # What is old in ξ no longer has a say in the loss, and is noise only.
    options = common(particles=100, sigma=0.1)
    order = []
    for estimator in (
        unrolled.NRES("sgd", **options),
        unrolled.GPES("sgd", period=16, **options),
        unrolled.PES("sgd", **options),
    ):
        rows = gradients(Forgetting(), estimator, 32).reshape(-1, 8, 20)
        order.append(rows[:, 1:].var(axis=0).sum(axis=-1).mean())
    assert order[1] > 1.2 * order[0]
    assert order[2] > 1.2 * order[1]


def test_locked_particles_estimate_the_part_of_the_episode_they_are_in(estimates):
    for part in range(2):
        steps = range(W * part, W * part + W)
        assert_within_five_errors(estimates["NRES"][part::2], truth(T, steps))


@pytest.fixture(scope="module")
def staggered():
    options = dict(locked=False, burn_in=True)
    return gradients(Powers(), CASES["NRES"][0](**options), 2 * EPISODES)[:, 0]


def test_staggered_particles_estimate_the_whole_episode_in_each_window(staggered):
    for part in range(2):
        assert_within_five_errors(staggered[part::2], truth(T))
    assert_within_five_errors(episodes(staggered), truth(T))


def test_without_burn_in_particles_are_spread_after_their_first_episodes():
    options = dict(locked=False, burn_in=False)
    rows = gradients(Powers(), CASES["NRES"][0](**options), 2 * EPISODES + 2)[:, 0]
    # The first window has all particles at step 0.
    assert abs(rows[0] - truth(T, range(W))) < 5 * rows[::2].std()
    for part in range(2):
        assert_within_five_errors(rows[2:][part::2], truth(T))
