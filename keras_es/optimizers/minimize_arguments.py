"""The arguments of `minimize`: what is refused, and the strategy of a name."""

import math
import numbers

from keras_es import optimizers
from keras_es._arguments import boolean
from keras_es.noise.options import Layerwise, Outputs
from keras_es.optimizers.evolution.strategy import EvolutionStrategy


def check_arguments(fn, sizes, target, compiled, callback, verbose):
    """Refuse what `minimize` cannot do with."""
    if not callable(fn):
        raise ValueError(f"`fn` must be a function of one x. Received: fn={fn!r}")
    if not sizes or not all(sizes):
        raise ValueError(
            "`x0`, and each array in it, must hold at least one number. "
            f"Received: {'an empty array' if sizes else 'none'}"
        )
    number = isinstance(target, numbers.Real) and not isinstance(target, bool)
    if target is not None and (not number or math.isnan(target)):
        raise ValueError(
            "`target` must be None or the loss at which to stop, a number. "
            f"Received: target={target!r}"
        )
    boolean("compiled", compiled)
    if callback is not None and not callable(callback):
        raise ValueError(
            "`callback` must be None or a function of (generation, Minimum). "
            f"Received: callback={callback!r}"
        )
    check_verbose(verbose)


def check_verbose(verbose):
    """Refuse what a progress bar would take for silence."""
    if not isinstance(verbose, numbers.Integral) or verbose not in (0, 1, 2):
        raise ValueError(f"`verbose` must be 0, 1 or 2. Received: verbose={verbose!r}")


_WITHOUT_MODEL = {
    "fitness": "`fn` is the fitness",
    "batch_mode": "`fn` is called without examples",
    "turns": "members are evaluated one by one, or compiled all at once",
}
"""Options of strategies that only a model has a use for, and why."""


def refuse_options(strategy, useless=_WITHOUT_MODEL):
    """Raise for options of a strategy that would be ignored.

    Args:
        strategy: The `EvolutionStrategy`.
        useless: Dict from the name of an option to why there is nothing for it.
    """
    for name, why in useless.items():
        if getattr(strategy, name, None) not in (None, "full"):
            raise ValueError(
                f"`strategy` must have no `{name}`: {why}. "
                f"Received: {name}={getattr(strategy, name)!r}"
            )
    if not strategy.semi_updates:
        raise ValueError(
            "`strategy` must have semi_updates=True: there are no replicas. "
            "Received: semi_updates=False"
        )
    if isinstance(getattr(strategy, "noise", None), Layerwise | Outputs):
        raise ValueError(
            "`strategy` must have noise on its variables, for no layers are known. "
            f"Received: noise={strategy.noise!r}"
        )


def strategy_for(strategy, size):
    """Return the strategy of a name, or the given one if it can search."""
    if isinstance(strategy, str):
        cls = optimizers.get(strategy)
        if strategy not in optimizers.PURE:
            raise ValueError(
                f"`strategy` must be one of {sorted(optimizers.PURE)}: the others move "
                f"masks only. Received: strategy={strategy!r}"
            )
        members = 2 * math.ceil((4.0 + 3.0 * math.log(size)) / 2.0)
        return cls(None, **cls.small_search(members, 0.5))
    if (
        not isinstance(strategy, EvolutionStrategy)
        or strategy.inner_optimizer is not None
    ):
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
    refuse_options(strategy)
    return strategy
