"""`evolve`: rewards that Python functions give a model move its weights."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es import _compat
from keras_es._arguments import integer
from keras_es.layers import tree
from keras_es.ops import fitness as shaping
from keras_es.ops import noise
from keras_es.optimizers.evolution.qes import QES
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.minimize_arguments import check_verbose, refuse_options
from keras_es.populations.model_state import (
    refuse_nothing_to_evolve,
    refuse_other_weights,
)


def evolve(
    model: keras.Model,
    reward: Callable[[keras.Model, int], Any],
    *,
    generations: int = 100,
    callback: Callable[[int, dict[str, float]], bool | None] | None = None,
    verbose: int = 1,
) -> keras.callbacks.History:
    """Evolve the trainable weights of a model by rewards that are Python.

    In each generation `reward` is called once for every member of the population,
    while the weights of `model` are those of the member: it may call
    `model.generate`, a simulator, a parser, another program. Nothing of it is traced,
    and nothing differentiated. Then the optimizer of `compile`, a strategy with
    `inner_optimizer=None`, moves the weights as it does in `fit`.

    Noise is drawn from seeds and never stored: besides the model there is one copy of
    its *trainable* weights, by which each member is undone to the bit. With adapters
    (`enable_lora`) that is a copy of the adapters, and what is frozen is never touched.
    A run goes on exactly after the state of weights and optimizer was loaded, for
    members are a function of (seed, generation, member), and so are the states of the
    model's seed generators (and of a KerasHub sampler), the same for all members.

    Args:
        model: A built and compiled Keras model, any class of it.
        reward: Function (model, generation) that returns how good the model is, higher
            is better: a number, or a list of numbers, one for each group, such as a
            prompt. With groups, members are compared within each (z-scores over the
            members, see `keras_es.ops.fitness.within_groups`), and the means over the
            groups are what counts. All members of a generation should see the same:
            choose prompts by `generation`, which goes on after loading.
        generations: Number of generations to run now, at least 1.
        callback: None or a function of (generation, logs), called while the model has
            its new weights, that may return True to stop.
        verbose: 1 for a progress bar, 2 for a line at the end, 0 for silence.

    Returns:
        A `keras.callbacks.History`; an entry for each generation of "reward" (mean over
        the members), "best", "spread" (std) and "nonfinite_rewards": how many rewards
        were NaN or infinite. These contribute nothing. Ctrl-C ends the run early, with
        the weights of the last whole generation.

    Raises:
        ValueError: If the model is not compiled with such a strategy, an option of it
            has no use here, or the reward is no number or list of numbers.
        Exception: What `reward` raises passes through; the weights are the mean again.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras_es.optimizers.OpenES(None, 8, sigma=0.1))
    >>> def reward(model, generation):
    ...     return 1.0 if float(model(np.ones((1, 2)))[0, 0]) > 3.0 else 0.0
    >>> history = evolve(model, reward, generations=2, verbose=0)
    >>> len(history.history["reward"])
    2

    References:
        Qiu et al. 2025, Evolution strategies at scale: LLM fine-tuning beyond
        reinforcement learning, arXiv 2509.24372.
    """
    if not callable(reward):
        raise ValueError(
            "`reward` must be a function of (model, generation). "
            f"Received: reward={reward!r}"
        )
    if callback is not None and not callable(callback):
        raise ValueError(
            "`callback` must be None or a function of (generation, logs). "
            f"Received: callback={callback!r}"
        )
    generations = integer(1)("generations", generations)
    check_verbose(verbose)
    members = _members_of(model)
    history = keras.callbacks.History()
    history.set_model(model)
    history.on_train_begin()
    bar = keras.utils.Progbar(
        generations, verbose=verbose, unit_name="generation",
        stateful_metrics=["reward", "best", "spread", "nonfinite_rewards"],
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):
        for i in range(generations):
            generation = int(members.strategy.generation.value)
            rewards = members.rewards(reward, generation)
            members.tell(rewards)
            logs = _logs(rewards)
            history.on_epoch_end(generation, logs)
            stop = callback is not None and bool(callback(generation, dict(logs)))
            bar.update(i + 1, list(logs.items()), finalize=stop or i + 1 == generations)
            if stop:
                break
    return history


_USELESS = {
    "fitness": "`reward` is the fitness",
    "batch_mode": "what members see is chosen by `reward`",
    "turns": "members are evaluated one by one",
}
"""Options of strategies that `fit` alone has a use for, and why."""


def _loop_of(model):
    """Return what asks and tells; refuse what `evolve` cannot do with."""
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            f"`model` must be a built Keras model. Received: model={model!r}"
        )
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1 or tf.distribute.has_strategy():
        raise ValueError(
            "`evolve` calls Python for one member after the other, on one device: make "
            "the model outside of a `tf.distribute` strategy, or use `fit`. "
            f"Received: a model with {replicas} replicas"
        )
    # With float16 Keras puts loss scaling around any optimizer.
    optimizer = _compat.innermost_optimizer(getattr(model, "optimizer", None))
    if isinstance(optimizer, EvolutionStrategy) and optimizer.inner_optimizer is None:
        refuse_options(optimizer, _USELESS)
        refuse_nothing_to_evolve(model)
        model.optimizer.build(model.trainable_variables)
        refuse_other_weights(model, optimizer.search.space.weights)
        return optimizer.loop()
    if isinstance(optimizer, QES):
        return optimizer.loop_on(model)
    raise ValueError(
        "`model` must be compiled with a strategy that evolves its weights: "
        "model.compile(keras_es.optimizers.OpenES(None)). "
        f"Received: model.optimizer={optimizer!r}"
    )


def _members_of(model):
    """Return the `_Members` of a model, whose functions are traced once."""
    loop = _loop_of(model)
    members = vars(loop).get("in_turn")
    if members is None or members.model is not model:
        members = _Members(model, loop)
        loop.in_turn = members
    return members


class _Members:
    """The members of a generation, which take their turns in the model.

    Args:
        model: Keras model.
        loop: `AskTell` of its weights, or another that has its calls.
    """

    def __init__(self, model, loop):
        self.model, self.loop, self.strategy = model, loop, loop.strategy
        self.variables = [v for v, _ in loop.member(tf.constant(0))]
        self._put = tf.function(self._assign, autograph=False)

    @property
    def seeds(self):
        """Seeds of layers, and of a sampler of KerasHub, which no file holds."""
        sampler = getattr(getattr(self.model, "sampler", None), "variables", [])
        return [*tree.seed_states(self.model), *sampler]

    def rewards(self, reward, generation):
        """Return the rewards of all members, [members] or [members, groups]."""
        center = _copies(self.variables)
        states = self.seeds
        seeds = _copies(states)
        found: list[np.ndarray] = []
        try:
            for index in range(self.strategy.population_size):
                self._put(tf.constant(index), center)
                self._begin(states, generation)
                found.append(_checked(reward(self.model, generation)))
                if found[-1].shape != found[0].shape:
                    raise ValueError(
                        "`reward` must return as many numbers for each member of a "
                        f"generation. Received: {found[0].size} for the first, "
                        f"{found[-1].size} for member {index}"
                    )
        finally:
            _restore(self.variables, center)
            _restore(states, seeds)
        return np.stack(found)

    def tell(self, rewards):
        """Move the weights by what the members got."""
        if rewards.ndim == 2:
            fitness = shaping.within_groups(tf.constant(-rewards)).numpy()
            valid = np.isfinite(rewards).any(axis=1)
        else:
            valid = np.isfinite(rewards)
            # A member that failed is neither better nor worse than the others.
            mean = rewards[valid].mean() if valid.any() else 0.0
            fitness = -np.where(valid, rewards, mean)
        self.loop.tell_apart(fitness, valid)

    def _assign(self, index, center):
        _restore(self.variables, center)
        for variable, value in self.loop.member(index):
            variable.assign(value)

    def _begin(self, states, generation):
        """Let the members of a generation draw the same, in whatever run it is."""
        for i, state in enumerate(states):
            key = noise.stream_key(self.strategy.seed, f"seed of the model {i}")
            words = np.array([key % 2**32, generation % 2**32], "uint32")
            state.assign(np.resize(words, state.shape))


def _copies(variables):
    return [tf.identity(tf.convert_to_tensor(v.value)) for v in variables]


def _restore(variables, values):
    for variable, value in zip(variables, values):
        variable.assign(value)


def _checked(value):
    """Return a reward as an array of one number, or of one for each group."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype == tf.bfloat16.as_numpy_dtype:  # of no kind that NumPy knows
        array = array.astype("float32")
    if array.dtype.kind not in "fiub" or array.ndim > 1 or not array.size:
        raise ValueError(
            "`reward` must return a number, or a list of numbers, one for each group. "
            f"Received: {value!r}"
        )
    return array.astype("float64")


def _logs(rewards):
    """Return what a generation's rewards were."""
    finite = np.isfinite(rewards)
    known = np.where(finite, rewards, 0.0).reshape(len(rewards), -1)
    counts = finite.reshape(len(rewards), -1).sum(axis=1)
    means = known.sum(axis=1)[counts > 0] / counts[counts > 0]
    if not means.size:
        means = np.array([np.nan])
    return {
        "reward": float(means.mean()),
        "best": float(means.max()),
        "spread": float(means.std()),
        "nonfinite_rewards": int(np.sum(~finite)),
    }
