"""Pure evolution: evaluations (members x examples) a second, against peers.

An MLP 784-128-10 with ReLU, a population of 128, a batch of 1,024 examples that all
members share. A generation is all of it: draw, evaluate every member, rank, search
gradient, Adam. Peers: evosax's Open_ES with the whole generation under `jax.jit`, as
fast as it was found to go (two ways of batching the members and two random number
generators, the fastest counts); pygad's kerasga, which sets the weights of one
candidate and predicts; and plain inference of one network on a large batch.
"""

import statistics

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import Row, interleaved, peer
from keras_es.noise.weights import WeightNoise
from keras_es.ops import fitness as shaping
from keras_es.ops import search
from keras_es.populations.perturbed import WeightPopulation

SUITE = "population"
BATCH, MEMBERS, SIGMA, LEARNING_RATE = 1024, 128, 0.02, 0.01
INFERENCE_BATCH = 16384
CANDIDATES = 8


def run(quick=False):
    """Return the rows."""
    data = make_data()
    evaluations = MEMBERS * BATCH
    cases = {name: (f, evaluations) for name, f in own_cases(data).items()}
    cases.update({n: (f, INFERENCE_BATCH) for n, f in inference_cases().items()})
    cases.update({n: (f, evaluations) for n, f in evosax_cases(data).items()})
    cases.update({n: (f, CANDIDATES * BATCH) for n, f in pygad_cases(data).items()})
    seconds = interleaved(
        {name: f for name, (f, _) in cases.items()}, rounds=3 if quick else 9, warmup=2
    )
    rates = {
        name: [cases[name][1] / s for s in values] for name, values in seconds.items()
    }
    return rows(rates)


def rows(rates):
    """Turn evaluations per second, in rounds, into rows."""
    targets = {
        ("full rank", "evosax"): ">= 2.5",
        ("full rank, 8 pairs a draw", "evosax"): ">= 2.5",
        ("rank 1", "evosax"): ">= 6",
        ("rank 4", "evosax"): ">= 6",
        ("rank 1", "inference"): ">= 2",
        ("rank 4", "inference"): ">= 2",
        ("full rank", "inference"): None,
        ("full rank", "pygad"): None,
        ("rank 1", "pygad"): None,
    }
    found = []
    for (case, against), target in targets.items():
        names = [name for name in rates if name.startswith(against)]
        if not names:
            continue
        best = max(names, key=lambda name: statistics.median(rates[name]))
        found.append(
            Row(
                SUITE,
                f"{case}, over {best}",
                statistics.median(rates[case]),
                "evaluations/s",
                statistics.median(rates[best]),
                statistics.median(a / b for a, b in zip(rates[case], rates[best])),
                target,
                {name: statistics.median(rates[name]) for name in names},
            )
        )
    return found


def make_data():
    """Return images of noise and labels; speed does not depend on what they show."""
    generator = np.random.default_rng(0)
    x = generator.random((BATCH, 784), dtype="float32")
    return x, generator.integers(0, 10, BATCH).astype("int32")


def make_model():
    """Return the MLP 784-128-10."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def own_cases(data):
    """Return our generations by name."""
    settings = {
        "full rank": {},
        "full rank, 8 pairs a draw": {"pairs_per_draw": 8},
        "rank 1": {"rank": 1},
        "rank 4": {"rank": 4},
    }
    return {
        name: generations(
            make_model(), data, keras.optimizers.Adam(LEARNING_RATE), MEMBERS, **kw
        )
        for name, kw in settings.items()
    }


def generations(model, data, optimizer, members, **noise_settings):
    """Return a function that runs a whole generation, compiled by XLA.

    Args:
        model: Built Keras model of classes, as logits.
        data: Examples and labels that all members share.
        optimizer: Keras optimizer of the mean.
        members: Number of members.
        **noise_settings: Of `WeightNoise`.
    """
    x, y = map(tf.constant, data)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(model.trainable_variables)
    noise = WeightNoise(model.trainable_variables, **noise_settings)
    population = WeightPopulation(model, noise, members)

    def generation(index, x, y):
        scales = [SIGMA for _ in noise.variables]
        losses, *_ = population.evaluate(lambda: loss(y, model(x)), index, scales)
        utilities = shaping.centered_rank(losses)
        sums = noise.weighted_sums(index, utilities[0::2] - utilities[1::2])
        gradients = [search.gaussian(s, members, SIGMA) for s in sums]
        optimizer.apply(gradients, model.trainable_variables)
        return tf.reduce_mean(losses)

    compiled = tf.function(generation, jit_compile=True, autograph=False)
    counter = iter(range(10**9))
    return lambda: compiled(tf.constant(next(counter), tf.int64), x, y).numpy()


def inference_cases():
    """Return plain inference of one network on a batch that is as large as wanted."""
    model = make_model()
    images = np.random.default_rng(1).random((INFERENCE_BATCH, 784), dtype="float32")
    x = tf.constant(images)
    compiled = tf.function(model, jit_compile=True, autograph=False)
    graph = tf.function(model, autograph=False)
    return {
        "inference, XLA": lambda: compiled(x).numpy(),
        "inference, graph": lambda: graph(x).numpy(),
        "inference, predict_on_batch": lambda: model.predict_on_batch(x),
    }


def evosax_cases(data):
    """Return generations of evosax's Open_ES by name, {} without it."""
    if peer("evosax", SUITE) is None:
        return {}
    import jax

    variants = {
        "evosax, vmap, threefry": (None, "threefry2x32"),
        "evosax, 32 at once, threefry": (32, "threefry2x32"),
        "evosax, vmap, unsafe_rbg": (None, "unsafe_rbg"),
        "evosax, 1 at once, unsafe_rbg": (1, "unsafe_rbg"),
    }
    return {
        name: _evosax_generation(data, at_once, jax.random.key(0, impl=generator))
        for name, (at_once, generator) in variants.items()
    }


def _evosax_generation(data, at_once, key):
    import jax
    import jax.numpy as jnp
    import optax
    from evosax.algorithms import Open_ES

    x, y = map(jnp.asarray, data)
    w1, b1, w2, b2 = (jnp.asarray(v) for v in make_model().get_weights())
    start = {"w1": w1, "b1": b1, "w2": w2, "b2": b2}

    def loss(p, x, y):
        hidden = jax.nn.relu(x @ p["w1"] + p["b1"])
        logits = hidden @ p["w2"] + p["b2"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    strategy = Open_ES(
        population_size=MEMBERS,
        solution=start,
        optimizer=optax.adam(LEARNING_RATE),
        std_schedule=optax.constant_schedule(SIGMA),
        metrics_fn=lambda *args: {},
    )
    params = strategy.default_params

    @jax.jit
    def generation(key, state, x, y):
        key, ask, tell = jax.random.split(key, 3)
        population, state = strategy.ask(ask, state, params)
        if at_once is None:
            losses = jax.vmap(loss, (0, None, None))(population, x, y)
        else:
            member = lambda p: loss(p, x, y)  # noqa: E731
            losses = jax.lax.map(member, population, batch_size=at_once)
        state, _ = strategy.tell(tell, population, losses, state, params)
        return key, state, losses.mean()

    held = [key, strategy.init(key, start, params)]

    def step():
        held[0], held[1], mean = generation(*held, x, y)
        jax.block_until_ready((held, mean))

    return step


def pygad_cases(data):
    """Return the evaluation of a few candidates by kerasga, {} without it."""
    if peer("pygad", SUITE) is None:
        return {}
    from pygad import kerasga

    model, (x, y) = make_model(), data
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    candidates = kerasga.KerasGA(model, num_solutions=CANDIDATES).population_weights

    def evaluate():
        for weights in candidates:
            logits = kerasga.predict(model, weights, x, batch_size=BATCH)
            loss(y, logits).numpy()

    return {"pygad": evaluate}
