"""Ways of moving masks, each a Keras optimizer that wraps the one of the weights."""

import difflib

from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.evolution.alopex import Alopex
from keras_es.optimizers.evolution.bernoulli_nes import BernoulliNES
from keras_es.optimizers.evolution.genetic import GeneticAlgorithm
from keras_es.optimizers.evolution.guided_es import GuidedES
from keras_es.optimizers.evolution.open_es import OpenES
from keras_es.optimizers.evolution.pgpe import PGPE
from keras_es.optimizers.evolution.sep_cma_es import SepCMAES
from keras_es.optimizers.evolution.snes import SNES
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.for_run import for_run
from keras_es.optimizers.gradient.gradual_magnitude import GradualMagnitude
from keras_es.optimizers.gradient.rigl import RigL
from keras_es.optimizers.gradient.set import SET
from keras_es.optimizers.gradient.static import Static
from keras_es.optimizers.gradient.straight_through import StraightThrough
from keras_es.optimizers.options import Chunks, Falling, Sampled, Turns

OPTIMIZERS = {
    "snes": SNES,
    "open_es": OpenES,
    "bernoulli_nes": BernoulliNES,
    "guided_es": GuidedES,
    "straight_through": StraightThrough,
    "rigl": RigL,
    "set": SET,
    "gradual_magnitude": GradualMagnitude,
    "static": Static,
}
"""Name -> class of all methods that move masks next to gradients for the weights."""

PURE = {
    "snes": SNES,
    "open_es": OpenES,
    "pgpe": PGPE,
    "sep_cma_es": SepCMAES,
    "genetic_algorithm": GeneticAlgorithm,
    "alopex": Alopex,
}
"""Name -> class of all that evolve the weights too, with `inner_optimizer=None`."""


def get(name):
    """Return the class of a method by its snake-case name.

    Raises:
        ValueError: If there is none of that name; near matches are named.

    Example:

    >>> get("snes").__name__
    'SNES'
    """
    known = {**OPTIMIZERS, **PURE}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(
        f"The mask optimizer must be one of {sorted(known)}.{hint} Received: {name!r}"
    )


__all__ = [
    "OPTIMIZERS",
    "PGPE",
    "PURE",
    "SET",
    "SNES",
    "Alopex",
    "BernoulliNES",
    "Chunks",
    "EvolutionStrategy",
    "Falling",
    "GeneticAlgorithm",
    "GradualMagnitude",
    "GuidedES",
    "MaskOptimizer",
    "OpenES",
    "RigL",
    "Sampled",
    "SepCMAES",
    "Static",
    "StraightThrough",
    "Turns",
    "for_run",
    "get",
]
