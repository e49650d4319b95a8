"""`minimize`: an evolution strategy on a plain function."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from keras_es import optimizers
from keras_es.optimizers.search.weights import EvolvesWeights


@dataclasses.dataclass
class Minimum:
    """What `minimize` found.

    Attributes:
        x: The best member of all generations, in the structure of `x0`.
        loss: Its loss.
        mean: The mean of the search distribution at the end, which is often better
            where the function is noisy.
        history: Dict of lists, one entry for each generation: "best" (so far), "mean"
            and "lowest" loss of the population.
        generations: Number of generations.
    """

    x: object
    loss: float
    mean: object
    history: dict
    generations: int


def minimize(
    fn,
    x0,
    strategy="snes",
    *,
    generations=100,
    target=None,
    compiled=False,
    callback=None,
    verbose=1,
):
    """Minimize a function of arrays by its values alone.

    Args:
        fn: Function of one `x` in the structure of `x0` that returns its loss, a
            scalar (NaN and infinity count as failed). Called with NumPy arrays, once
            for each member; or see `compiled`.
        x0: Array or (nested) list, tuple or dict of arrays: where the search begins.
        strategy: Strategy with `inner_optimizer=None` that no model uses, such as
            `keras_es.optimizers.SepCMAES(population_size=32, sigma=0.5)`, or its name,
            which stands for 4 + 3 ln d members (d numbers in `x0`) and sigma 0.5.
        generations: Number of generations, at least 1.
        target: Stop when the best loss is at or below it; None for never.
        compiled: True for a function of TensorFlow or `keras.ops` operations: it is
            traced once, and all members are evaluated in one compiled call.
        callback: None or a function of (generation, `Minimum` so far) that may return
            True to stop.
        verbose: 1 for a progress bar with the best and mean loss, 0 for silence.

    Returns:
        `Minimum`.

    Raises:
        ValueError: If an argument is out of range or of another kind.

    Example:

    >>> def sphere(x):
    ...     return np.sum((x - 3.0) ** 2)
    >>> found = minimize(sphere, np.zeros(5), generations=150, verbose=0)
    >>> bool(found.loss < 1e-3)
    True
    """
    structure = keras.tree.map_structure(lambda a: np.asarray(a, "float32"), x0)
    size = sum(a.size for a in keras.tree.flatten(structure))
    _check(fn, generations, size)
    strategy = _strategy(strategy, size)
    variables = [
        keras.Variable(a, dtype="float32", name=f"x{i}")
        for i, a in enumerate(keras.tree.flatten(structure))
    ]
    strategy.build(variables)
    search = _Search(fn, structure, strategy, variables, compiled)
    bar = keras.utils.Progbar(
        generations, verbose=verbose, stateful_metrics=["best", "mean"],
        unit_name="generation",
    )  # fmt: skip
    for generation in range(generations):
        found = search.generation()
        best, mean = found.loss, found.history["mean"][-1]
        stop = target is not None and best <= target
        if callback is not None:
            stop = bool(callback(generation, found)) or stop
        last = stop or generation == generations - 1
        bar.update(generation + 1, [("best", best), ("mean", mean)], finalize=last)
        if stop:
            break
    return found


class _Search:
    """The loop of ask, evaluate and tell, and the best so far."""

    def __init__(self, fn, structure, strategy, variables, compiled):
        self.fn, self.structure = fn, structure
        self.strategy, self.variables = strategy, variables
        self.evaluate = self._one_by_one
        if compiled:
            self.evaluate = tf.function(self._all_at_once, autograph=False)
        empty = {"best": [], "mean": [], "lowest": []}
        self.found = Minimum(structure, math.inf, structure, empty, 0)

    def generation(self):
        """Run a generation and return the `Minimum` so far."""
        population = self.strategy.ask()
        losses = np.asarray(self.evaluate(population), "float32")
        known = np.where(np.isfinite(losses), losses, np.inf)
        index, found = int(np.argmin(known)), self.found
        if known[index] < found.loss:
            found.loss = float(known[index])
            found.x = self._packed([np.array(values[index]) for values in population])
        self.strategy.tell(losses)
        found.mean = self._packed([v.numpy() for v in self.variables])
        finite = known[np.isfinite(known)]
        found.history["mean"].append(float(np.mean(finite)) if finite.size else np.nan)
        found.history["lowest"].append(float(known[index]))
        found.history["best"].append(found.loss)
        found.generations += 1
        return found

    def _one_by_one(self, population):
        members = zip(*(np.asarray(values) for values in population))
        return [self._loss(self.fn(self._packed(list(m)))) for m in members]

    def _loss(self, value):
        value = np.asarray(value, "float32")
        if value.size != 1:
            raise ValueError(
                "`fn` must return the loss of one x, a scalar. "
                f"Received: a value of shape {value.shape}"
            )
        return value.reshape(())

    def _all_at_once(self, population):
        return tf.vectorized_map(
            lambda parts: tf.cast(self.fn(self._packed(list(parts))), tf.float32),
            tuple(population),
        )

    def _packed(self, parts):
        return keras.tree.pack_sequence_as(self.structure, parts)


def _check(fn, generations, size):
    if not callable(fn):
        raise ValueError(f"`fn` must be a function of one x. Received: fn={fn!r}")
    if not isinstance(generations, int) or generations < 1:
        raise ValueError(
            "`generations` must be an integer of at least 1. "
            f"Received: generations={generations!r}"
        )
    if not size:
        raise ValueError("`x0` must hold at least one number. Received: none")


def _strategy(strategy, size):
    if isinstance(strategy, str):
        cls = optimizers.get(strategy)
        if strategy not in optimizers.PURE:
            raise ValueError(
                f"`strategy` must be one of {sorted(optimizers.PURE)}: the others move "
                f"masks only. Received: strategy={strategy!r}"
            )
        members = 2 * math.ceil((4.0 + 3.0 * math.log(size)) / 2.0)
        return cls(None, **cls.small_search(members, 0.5))
    if not isinstance(strategy, EvolvesWeights) or not strategy.pure:
        raise ValueError(
            "`strategy` must be a strategy of keras_es.optimizers with "
            "inner_optimizer=None, or its name. "
            f"Received: strategy={strategy!r}"
        )
    if strategy.built:
        raise ValueError(
            "`strategy` holds the state of another search. Give a new one: "
            f"{type(strategy).__name__}.from_config(strategy.get_config()). "
            f"Received: strategy={strategy.name!r}, built"
        )
    return strategy
