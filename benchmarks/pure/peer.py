"""evosax's Open_ES on the same network, first weights, batches and schedules."""

import jax
import jax.numpy as jnp
import keras
import optax
from evosax.algorithms import Open_ES

from benchmarks.pure.training import POINTS

AT_ONCE = 16
"""Members that are mapped over at once; the rest in turn, as memory wants it."""


def evolve(model, method, config, generations, seed, batches, measure):
    """Evolve the weights of a model by evosax and return it, compiled.

    The whole generation is under `jax.jit`. The network is computed as products of
    matrices, which is much faster here than convolutions mapped over members.

    Args:
        model: Plain Keras model: convolutions whose stride is their size, then dense
            layers, ReLU between all.
        method: "evosax".
        config: Dict: `population`, `sigma`, `end_sigma`, `learning_rate`.
        generations: Number of generations.
        seed: Seed of the noise.
        batches: Endless `tf.data.Dataset`, a batch for each generation.
        measure: Function (compiled model, generation), called `POINTS` times.
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    weights = [jnp.asarray(w) for w in model.get_weights()]
    per_point = max(1, generations // POINTS)
    strategy = make_strategy(weights, config, generations)
    run = generation_of(strategy)
    key = jax.random.key(seed, impl="unsafe_rbg")
    state = strategy.init(key, weights, strategy.default_params)
    for index, (x, y) in zip(range(generations), batches.as_numpy_iterator()):
        key, state = run(key, state, x, y)
        if (index + 1) % per_point == 0:
            model.set_weights(strategy.get_mean(state))
            measure(model, index + 1)
    return model


def make_strategy(weights, config, generations):
    """Return Open_ES with Adam and the schedules that ours has."""
    rate = optax.cosine_decay_schedule(config["learning_rate"], generations)
    sigma = optax.cosine_decay_schedule(
        config["sigma"], generations, alpha=config.get("end_sigma", 1.0)
    )
    return Open_ES(
        population_size=config["population"],
        solution=weights,
        optimizer=optax.adam(rate, eps=1e-7),
        std_schedule=sigma,
        metrics_fn=lambda *args: {},
    )


def generation_of(strategy):
    """Return a function (key, state, x, y) -> (key, state), compiled."""
    params = strategy.default_params

    @jax.jit
    def generation(key, state, x, y):
        key, ask, tell = jax.random.split(key, 3)
        population, state = strategy.ask(ask, state, params)
        losses = jax.lax.map(
            lambda weights: mean_loss(weights, x, y), population, batch_size=AT_ONCE
        )
        state, _ = strategy.tell(tell, population, losses, state, params)
        return key, state

    return generation


def mean_loss(weights, x, y):
    """Return the mean cross-entropy of a batch.

    Args:
        weights: List of kernels and biases in turn.
        x: Images [batch, height, width, channels].
        y: Labels [batch].
    """
    last = len(weights) - 2
    for i in range(0, len(weights), 2):
        kernel, bias = weights[i], weights[i + 1]
        x = patches(x, kernel.shape[0]) if kernel.ndim == 4 else flat(x)
        x = x @ kernel.reshape(-1, kernel.shape[-1]) + bias
        x = x if i == last else jax.nn.relu(x)
    return optax.softmax_cross_entropy_with_integer_labels(x, y).mean()


def patches(x, side):
    """Cut images into squares, [batch, rows, columns, side * side * channels]."""
    batch, height, width, channels = x.shape
    rows, columns = height // side, width // side
    x = x.reshape(batch, rows, side, columns, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def flat(x):
    """Return a vector for each example."""
    return x.reshape(x.shape[0], -1)
