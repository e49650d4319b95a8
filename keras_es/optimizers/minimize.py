"""`minimize`: an evolution strategy on a plain function."""

import contextlib
import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es._arguments import integer
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.minimize_arguments import check_arguments, strategy_for


@dataclasses.dataclass
class Minimum:
    """What `minimize` found.

    Attributes:
        x: The best member of all generations, in the structure that `fn` is given.
        loss: Its loss.
        mean: The mean of the search distribution at the end, which is often better
            where the function is noisy.
        history: Dict of lists, one entry for each generation: "best" (so far), "mean"
            and "lowest" loss of the population.
        generations: Number of generations.
        message: Why the search ended.
    """

    x: Any
    loss: float
    mean: Any
    history: dict[str, list[float]]
    generations: int
    message: str = "all generations are over"


def minimize(
    fn: Callable[[Any], Any],
    x0: Any,
    strategy: "str | EvolutionStrategy" = "snes",
    *,
    generations: int = 100,
    target: float | None = None,
    compiled: bool = False,
    callback: Callable[[int, Minimum], bool | None] | None = None,
    verbose: int = 1,
) -> Minimum:
    """Minimize a function of arrays by its values alone.

    Losses are compared in float64, so neither 1e9 + f(x) nor 1e39 * f(x) is harder
    than f(x); x itself is searched in float32.

    Args:
        fn: Function of one `x` that returns its loss, a scalar (NaN and infinity count
            as failed). It is given what `x0` is: an array for an array, a dict of
            arrays for a dict; a single number stays one; and a list or tuple of
            numbers is one vector, as for `np.asarray`. Called with float64 arrays of
            NumPy, once for each member; or see `compiled`.
        x0: Where the search begins: an array, a list of numbers, or a (nested) list,
            tuple or dict of arrays or numbers. Real and finite, also in float32.
        strategy: Strategy with `inner_optimizer=None` that no model uses, such as
            `keras_es.optimizers.SepCMAES(population_size=32, sigma=0.5)`, or its name,
            which stands for 4 + 3 ln d members (d numbers in `x0`) and sigma 0.5.
            Options that only a model has a use for (`fitness`, `Sampled`, `Chunks`,
            noise on layers) are refused.
        generations: Number of generations, at least 1.
        target: Stop when the best loss is at or below it; None for never.
        compiled: True for a function of TensorFlow or `keras.ops` operations: it is
            traced once, given float32 tensors, and all members are evaluated in one
            compiled call.
        callback: None or a function of (generation, `Minimum` so far) that may return
            True to stop.
        verbose: 1 for a progress bar with the best and mean loss, 2 for a line at the
            end, 0 for silence.

    Returns:
        `Minimum`. Ctrl-C ends the search early: what was found until then is returned,
        and its `message` says so.

    Raises:
        ValueError: If an argument is out of range or of another kind, if `fn` returns
            no scalar, or if no loss was finite.
        Exception: What `fn` or `callback` raises passes through. The best so far is its
            attribute `minimum`, a `Minimum`, and in its notes.

    Example:

    >>> def sphere(x):
    ...     return np.sum((x - 3.0) ** 2)
    >>> found = minimize(sphere, [0.0] * 5, generations=150, verbose=0)
    >>> bool(found.loss < 1e-3), found.x.shape
    (True, (5,))
    """
    structure = keras.tree.traverse(_arrays, x0)
    arrays = keras.tree.flatten(structure)
    sizes = [a.size for a in arrays]
    check_arguments(fn, sizes, target, compiled, callback, verbose)
    generations = integer(1)("generations", generations)
    search = _Search(
        fn, structure, strategy_for(strategy, sum(sizes)), arrays, compiled
    )
    bar = keras.utils.Progbar(
        generations, verbose=verbose, stateful_metrics=["best", "mean"],
        unit_name="generation",
    )  # fmt: skip
    with search.best_is_kept() as found:
        for generation in range(generations):
            search.generation()
            stop = target is not None and found.loss <= target
            if stop:
                found.message = "the target is reached"
            if callback is not None and callback(generation, found):
                found.message, stop = "the callback stopped it", True
            last = stop or generation == generations - 1
            shown = [("best", found.loss), ("mean", found.history["mean"][-1])]
            bar.update(generation + 1, shown, finalize=last)
            if stop:
                break
    return search.result()


class _Search:
    """The loop of ask, evaluate and tell, and the best so far."""

    def __init__(self, fn, structure, strategy, arrays, compiled):
        self.fn, self.structure, self.strategy = fn, structure, strategy
        self.variables = [
            keras.Variable(a, dtype="float32", name=f"x{i}")
            for i, a in enumerate(arrays)
        ]
        strategy.build(self.variables)
        self.evaluate = self._one_by_one
        if compiled:
            traced = tf.function(self._traced, autograph=False)
            self.evaluate = lambda population: self._all_at_once(traced, population)
        self.unit = None
        empty = {"best": [], "mean": [], "lowest": []}
        start = self._packed(keras.tree.flatten(structure))
        self.found = Minimum(start, math.inf, start, empty, 0)

    def generation(self):
        """Run a generation."""
        losses = self.evaluate(self.strategy.ask())
        self.strategy.tell(losses * self._unit(losses))
        found, finite = self.found, losses[np.isfinite(losses)]
        found.mean = self._packed([v.numpy() for v in self.variables])
        with np.errstate(over="ignore"):
            mean = float(np.mean(finite)) if finite.size else math.nan
        found.history["mean"].append(mean)
        found.history["lowest"].append(float(finite.min(initial=math.inf)))
        found.history["best"].append(found.loss)
        found.generations += 1

    @contextlib.contextmanager
    def best_is_kept(self):
        """Yield the best so far; end at Ctrl-C, and put it on other exceptions."""
        found = self.found
        try:
            yield found
        except KeyboardInterrupt:
            if math.isinf(found.loss):
                raise
            found.message = "stopped by Ctrl-C"
        except Exception as error:
            if math.isfinite(found.loss):
                with contextlib.suppress(TypeError):  # of classes with slots
                    vars(error)["minimum"] = found
                error.add_note(
                    f"minimize had finished {found.generations} generations; the best "
                    f"loss so far is {found.loss:g}, and the attribute `minimum` of "
                    "this exception holds it with its x."
                )
            raise

    def result(self):
        """Return the `Minimum`.

        Raises:
            ValueError: If there is none, for all members failed.
        """
        if math.isinf(self.found.loss):
            raise ValueError(
                "`fn` returned no finite loss for any member of "
                f"{self.found.generations} generations. Begin at an x0 where it is "
                f"finite, or with a smaller sigma. Received: fn={self.fn!r}"
            )
        return self.found

    def _one_by_one(self, population):
        losses = []
        for member in zip(*(np.asarray(values, "float64") for values in population)):
            # A copy, for `fn` may write into what it is given.
            given = self._packed([np.array(values) for values in member])
            losses.append(float(_scalar(self.fn(given))))
            self._compare(losses[-1], member)
        return np.asarray(losses)

    def _all_at_once(self, traced, population):
        losses = traced(population).numpy()
        best = int(np.argmin(np.where(np.isfinite(losses), losses, math.inf)))
        self._compare(
            float(losses[best]), [np.array(v[best], "float64") for v in population]
        )
        return losses

    def _compare(self, loss, member):
        if math.isfinite(loss) and loss < self.found.loss:
            x = self._packed([np.array(values) for values in member])
            self.found.x, self.found.loss = x, loss

    def _traced(self, population):
        def loss(parts):
            try:
                value = self.fn(
                    keras.tree.pack_sequence_as(self.structure, list(parts))
                )
            except NotImplementedError as error:  # NumPy, of a tensor without a value
                raise ValueError(
                    "With compiled=True `fn` must be made of TensorFlow's or Keras's "
                    "operations; for NumPy's leave `compiled` out. "
                    f"Received: fn={self.fn!r}, compiled=True"
                ) from error
            return _scalar_tensor(value)

        return tf.vectorized_map(loss, tuple(population))

    def _unit(self, losses):
        """Return the factor that brings losses of any size into the range of float32.

        A power of two, and the same in all generations: some strategies compare
        losses of two of them. Where float32 can hold the losses it is 1.
        """
        finite = losses[np.isfinite(losses)]
        if self.unit is None and finite.size and finite.max() > finite.min():
            _, exponent = math.frexp(finite.max() / 4.0 - finite.min() / 4.0)
            # Room below for losses that fall, and above for those that do not.
            self.unit = 1.0 if abs(exponent) < 64 else 2.0**-exponent
        return self.unit or 1.0

    def _packed(self, parts):
        # A number stays a number: `[()]` of an array without axes is its item.
        parts = [np.asarray(part, "float64")[()] for part in parts]
        return keras.tree.pack_sequence_as(self.structure, parts)


def _arrays(x):
    """Return the array of an array or of a list of numbers; None for a structure."""
    numbers_only = isinstance(x, list | tuple) and not hasattr(x, "_fields")
    if numbers_only and x and all(isinstance(i, numbers.Number) for i in x):
        x = np.asarray(x)
    if isinstance(x, list | tuple | dict):
        return None
    try:
        array = np.asarray(x)
        with np.errstate(over="ignore"):
            single = array.astype("float32") if array.dtype.kind in "fiu" else math.nan
    except (TypeError, ValueError):
        single = math.nan
    if not np.all(np.isfinite(single)):
        raise ValueError(
            "`x0` must hold real and finite numbers, which float32 can hold: an array, "
            "a list of numbers, or a (nested) list, tuple or dict of them. "
            f"Received: x0 with {x!r}"
        )
    return single


def _scalar(value):
    array = None if value is None else np.asarray(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiub":
        received = f"shape {array.shape}, {array.dtype}" if array is not None else None
        raise _not_a_loss(received)
    return array.astype("float64").reshape(())


def _scalar_tensor(value):
    if value is None:
        raise _not_a_loss(None)
    value = tf.convert_to_tensor(value)
    real = value.dtype.is_floating or value.dtype.is_integer
    if value.shape.num_elements() != 1 or not real:
        raise _not_a_loss(f"shape {value.shape}, {value.dtype.name}")
    return tf.reshape(tf.cast(value, tf.float64), ())


def _not_a_loss(received):
    return ValueError(
        "`fn` must return the loss of one x, a scalar. "
        f"Received: {'None' if received is None else f'a value of {received}'}"
    )
