"""One update equals evosax's, given the same members and losses (`bench` extra)."""

import keras
import numpy as np
import pytest

from keras_es.optimizers import PGPE, SNES, OpenES, SepCMAES

pytest.importorskip("evosax")
# JAX and its friends warn about each other; that is not for us to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

MEMBERS, SIZE, SIGMA, GENERATIONS = 16, 12, 0.5, 3
START = np.linspace(-1.0, 1.0, SIZE).astype("float32")


def peers():
    """Return name -> (our strategy, evosax's class, its arguments, its params)."""
    import optax
    from evosax.core.optimizer import clipup

    sgd = keras.optimizers.SGD(0.1)
    return {
        "SNES": (SNES(None, MEMBERS, sigma=SIGMA), {}, {"std_init": SIGMA}),
        "Open_ES": (
            OpenES(None, MEMBERS, sigma=SIGMA, mean_optimizer=sgd),
            {
                "optimizer": optax.sgd(0.1),
                "std_schedule": optax.constant_schedule(SIGMA),
            },
            {},
        ),
        "PGPE": (
            PGPE(None, MEMBERS, sigma=SIGMA, max_speed=0.05, mean_learning_rate=0.03),
            {"optimizer": clipup(learning_rate=0.03, max_velocity=0.05)},
            {"std_init": SIGMA},
        ),
        # The peer has the learning rates of the full matrix.
        "Sep_CMA_ES": (
            SepCMAES(None, MEMBERS, sigma=SIGMA, rate_scale=1.0),
            {},
            {"std_init": SIGMA},
        ),
    }


@pytest.mark.parametrize("name", ["SNES", "Open_ES", "PGPE", "Sep_CMA_ES"])
def test_updates_equal_those_of_evosax(name):
    import jax
    import jax.numpy as jnp
    from evosax import algorithms

    ours, arguments, changed = peers()[name]
    variable = keras.Variable(START)
    ours.build([variable])
    theirs = getattr(algorithms, name)(
        population_size=MEMBERS, solution=jnp.asarray(START), **arguments
    )
    changed = {k: jnp.asarray(v) for k, v in changed.items()}
    params = theirs.default_params.replace(**changed)
    key = jax.random.key(0)
    state = theirs.init(key, jnp.asarray(START), params)
    random = np.random.default_rng(1)
    for _ in range(GENERATIONS):
        (members,) = ours.ask()
        # They have all +z first, then all -z; here the two of a pair are neighbours.
        order = np.arange(MEMBERS)
        if ours.mirrored:
            order = np.concatenate([order[0::2], order[1::2]])
        losses = random.normal(size=MEMBERS).astype("float32")
        # It draws nothing of its own that the update uses but what `ask` derives.
        _, state = theirs.ask(key, state, params)
        state, _ = theirs.tell(
            key, jnp.asarray(members.numpy()[order]), losses[order], state, params
        )
        ours.tell(losses)
        np.testing.assert_allclose(variable.numpy(), state.mean, rtol=2e-5, atol=2e-6)
        (scale,) = ours.scales()
        theirs_scale = np.ones(SIZE) * state.std
        if name == "Sep_CMA_ES":
            theirs_scale = state.std * jnp.sqrt(state.C)
        scale = np.ones(SIZE) * np.asarray(scale)
        np.testing.assert_allclose(scale, theirs_scale, rtol=2e-5)
