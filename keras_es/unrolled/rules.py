"""The noise rules: NRES, GPES, PES, full and truncated evolution strategies."""

import keras

from keras_es.unrolled.estimator import Estimator, whole


@keras.saving.register_keras_serializable(package="keras_es")
class NRES(Estimator):
    """Noise-reuse evolution strategies: one ε for a whole episode, ξ = ε.

    Unbiased for the gradient of E_ε[1/T Σ_t L_t(θ + ε)], the loss smoothed by noise
    that stays. Of all `GPES` it has the least variance where the loss's parts of an
    episode pull in one direction, and it is the first to try.

    Args:
        inner_optimizer: See `Estimator`, as all others.
        particles: Number of pairs, at least 1.
        unroll_length: Steps of a window, at least 1.
        sigma: Standard deviation of the noise, above 0.
        **kwargs: `clip`, `locked`, `burn_in`, `seed` and `name`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> estimator = keras_es.unrolled.NRES(
    ...     keras.optimizers.Adam(0.01), particles=100, unroll_length=20, sigma=0.1
    ... )

    References:
        Li, Harrison, Sohl-Dickstein, Smith, Metz 2023, Variance-reduced gradient
        estimation via noise-reuse in online evolution strategies.
    """

    def period(self, horizon):
        return horizon


@keras.saving.register_keras_serializable(package="keras_es")
class GPES(Estimator):
    """Generalized persistent evolution strategies: a new ε every K steps, ξ their sum.

    Unbiased for the gradient of E[1/T Σ_t L_t], where the weights of step t are θ +
    ε_⌊t/K⌋ with independent ε: another K smooths another way, and estimates another
    loss. `NRES` is K >= T, `PES` is K = 1.

    Args:
        inner_optimizer: See `Estimator`, as all others.
        period: K, at least 1.
        particles: Number of pairs, at least 1.
        unroll_length: Steps of a window, at least 1.
        sigma: Standard deviation of the noise, above 0.
        **kwargs: `clip`, `locked`, `burn_in`, `seed` and `name`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> estimator = keras_es.unrolled.GPES(
    ...     "sgd", period=50, particles=100, unroll_length=20, sigma=0.1
    ... )

    References:
        Li, Harrison, Sohl-Dickstein, Smith, Metz 2023, Variance-reduced gradient
        estimation via noise-reuse in online evolution strategies.
    """

    accumulates = True

    def __init__(self, inner_optimizer, *, period, **kwargs):
        super().__init__(inner_optimizer, **kwargs)
        self.noise_period = whole("period", period)

    def period(self, horizon):
        return min(self.noise_period, horizon)

    def get_config(self):
        return {**super().get_config(), "period": self.noise_period}


@keras.saving.register_keras_serializable(package="keras_es")
class PES(Estimator):
    """Persistent evolution strategies: a new ε for each step or window, ξ their sum.

    Args:
        inner_optimizer: See `Estimator`, as all others.
        noise: "step", a new ε for every step (`GPES` with K = 1), or "window", for
            every window (K = W, the paper's algorithm).
        particles: Number of pairs, at least 1.
        unroll_length: Steps of a window, at least 1.
        sigma: Standard deviation of the noise, above 0.
        **kwargs: `clip`, `locked`, `burn_in`, `seed` and `name`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> estimator = keras_es.unrolled.PES(
    ...     "sgd", particles=100, unroll_length=20, sigma=0.1
    ... )

    References:
        Vicol, Metz, Sohl-Dickstein 2021, Unbiased gradient estimation in unrolled
        computation graphs with persistent evolution strategies.
    """

    accumulates = True

    def __init__(self, inner_optimizer, *, noise="step", **kwargs):
        super().__init__(inner_optimizer, **kwargs)
        if not isinstance(noise, str) or noise not in ("step", "window"):
            raise ValueError(
                f'`noise` must be "step" or "window". Received: noise={noise!r}'
            )
        self.noise = noise

    def period(self, horizon):
        return 1 if self.noise == "step" else self.unroll_length

    def get_config(self):
        return {**super().get_config(), "noise": self.noise}


@keras.saving.register_keras_serializable(package="keras_es")
class FullES(Estimator):
    """Evolution strategies on whole episodes: one ε, one update for each episode.

    `NRES` with W = T. There is no `unroll_length`: a step of `fit` is an episode.

    Args:
        inner_optimizer: See `Estimator`.
        particles: Number of pairs, at least 1.
        sigma: Standard deviation of the noise, above 0.
        clip: See `Estimator`.
        seed: Integer seed.
        name: Name of the optimizer.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> estimator = keras_es.unrolled.FullES("sgd", particles=10, sigma=0.1)
    """

    def __init__(
        self, inner_optimizer, *, particles, sigma, clip=None, seed=0, name=None
    ):
        super().__init__(
            inner_optimizer, particles=particles, unroll_length=1, sigma=sigma,
            clip=clip, locked=True, seed=seed, name=name,
        )  # fmt: skip

    def window_length(self, horizon):
        return horizon

    def period(self, horizon):
        return horizon

    def get_config(self):
        config = super().get_config()
        return {
            k: v
            for k, v in config.items()
            if k not in ("unroll_length", "locked", "burn_in")
        }


@keras.saving.register_keras_serializable(package="keras_es")
class TruncatedES(Estimator):
    """Truncated evolution strategies: a new ε for each window, from the mean's state.

    A third copy is unrolled without noise, and pairs begin every window at its state.
    What the weights did to the loss of later windows is not seen: the estimate is
    biased, and for states that remember it may lead elsewhere.

    Args:
        inner_optimizer: See `Estimator`, as all others.
        particles: Number of pairs, at least 1; each costs three unrolls.
        unroll_length: Steps of a window, at least 1.
        sigma: Standard deviation of the noise, above 0.
        **kwargs: `clip`, `locked`, `burn_in`, `seed` and `name`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    >>> estimator = keras_es.unrolled.TruncatedES(
    ...     "sgd", particles=100, unroll_length=20, sigma=0.1
    ... )
    """

    follows_mean = True

    def period(self, horizon):
        return self.unroll_length
