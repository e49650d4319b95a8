"""What both sides run: algorithms, their settings, and the budget.

Equal on both sides: population, generations, initial sigma, learning rates, the first
mean and the instance of the function, which differ from seed to seed.
"""

import dataclasses
import functools

MEMBERS, GENERATIONS, SEEDS = 20, 200, 15
DIMENSIONS = (10, 40)


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One algorithm on both sides.

    Attributes:
        peer: Name of the class in `evosax.algorithms`.
        ours: Function of a seed to our strategy.
        theirs: Function without arguments to (arguments of the class, changed
            parameters) of the peer.
    """

    peer: str
    ours: object
    theirs: object


def _snes(seed, **more):
    from keras_es.optimizers import SNES

    return SNES(None, MEMBERS, sigma=2.0, seed=seed, **more)


def _open_es(seed, **more):
    import keras

    from keras_es.optimizers import OpenES

    adam = keras.optimizers.Adam(0.1, epsilon=1e-8)
    return OpenES(None, MEMBERS, sigma=0.5, mean_optimizer=adam, seed=seed, **more)


def _open_es_there():
    import optax

    schedule = optax.constant_schedule(0.5)
    return {"optimizer": optax.adam(0.1), "std_schedule": schedule}, {}


FALLING = {"sigma": 1.0, "rate": 0.5, "to": 0.01}
"""First sigma and rate of Adam where both fall exponentially, to which share."""


def _falling_open_es(seed, **more):
    import keras

    from keras_es.optimizers import OpenES

    def falling(first):
        return keras.optimizers.schedules.ExponentialDecay(
            first, GENERATIONS, FALLING["to"]
        )

    adam = keras.optimizers.Adam(falling(FALLING["rate"]), epsilon=1e-8)
    sigma = falling(FALLING["sigma"])
    return OpenES(None, MEMBERS, sigma=sigma, mean_optimizer=adam, seed=seed, **more)


def _falling_open_es_there():
    import optax

    sigma, rate = (
        optax.exponential_decay(FALLING[name], GENERATIONS, FALLING["to"])
        for name in ("sigma", "rate")
    )
    return {"optimizer": optax.adam(rate), "std_schedule": sigma}, {}


def _pgpe(seed, **more):
    from keras_es.optimizers import PGPE

    return PGPE(
        None, MEMBERS, sigma=1.0, max_speed=0.5, mean_learning_rate=0.25, seed=seed,
        **more,
    )  # fmt: skip


def _pgpe_there():
    from evosax.core.optimizer import clipup

    clip_up = clipup(learning_rate=0.25, max_velocity=0.5)
    return {"optimizer": clip_up}, {"std_init": 1.0}


def _sep_cma_es(seed, **more):
    from keras_es.optimizers import SepCMAES

    return SepCMAES(None, MEMBERS, sigma=2.0, seed=seed, **more)


def _from(std):
    return lambda: ({}, {"std_init": std})


def _orthogonal(algorithm):
    def ours(*args, **more):
        from keras_es.noise import Orthogonal

        return algorithm.ours(*args, noise=Orthogonal(), **more)

    return dataclasses.replace(algorithm, ours=ours)


SAME = {
    "SNES": Algorithm("SNES", _snes, _from(2.0)),
    "OpenES": Algorithm("Open_ES", _open_es, _open_es_there),
    "PGPE": Algorithm("PGPE", _pgpe, _pgpe_there),
    # The learning rates of the full matrix on both sides, as the peer has them.
    "SepCMAES, rate_scale=1": Algorithm(
        "Sep_CMA_ES", functools.partial(_sep_cma_es, rate_scale=1.0), _from(2.0)
    ),
}
MORE = {
    "OpenES, falling": Algorithm("Open_ES", _falling_open_es, _falling_open_es_there),
    # Each as it comes: ours with the larger rates of Ros and Hansen.
    "SepCMAES": Algorithm("Sep_CMA_ES", _sep_cma_es, _from(2.0)),
}
ALGORITHMS = {
    **SAME,
    **{f"{k}, orthogonal": _orthogonal(v) for k, v in {**SAME, **MORE}.items()},
}
