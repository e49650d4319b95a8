"""Ways of moving masks, each a Keras optimizer that wraps the one of the weights."""

import difflib

from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.bernoulli_nes import BernoulliNES
from keras_es.optimizers.evolution import EvolutionStrategy
from keras_es.optimizers.gradual_magnitude import GradualMagnitude
from keras_es.optimizers.guided_es import GuidedES
from keras_es.optimizers.open_es import OpenES
from keras_es.optimizers.rigl import RigL
from keras_es.optimizers.runs import for_run
from keras_es.optimizers.set import SET
from keras_es.optimizers.snes import SNES
from keras_es.optimizers.static import Static
from keras_es.optimizers.straight_through import StraightThrough

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
"""Name -> class of all methods."""


def get(name):
    """Return the class of a method by its snake-case name.

    Raises:
        ValueError: If there is none of that name; near matches are named.

    Example:

    >>> get("snes").__name__
    'SNES'
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    near = difflib.get_close_matches(str(name), OPTIMIZERS, n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(
        f"The mask optimizer must be one of {sorted(OPTIMIZERS)}.{hint} "
        f"Received: {name!r}"
    )


__all__ = [
    "OPTIMIZERS",
    "SET",
    "SNES",
    "BernoulliNES",
    "EvolutionStrategy",
    "GradualMagnitude",
    "GuidedES",
    "MaskOptimizer",
    "OpenES",
    "RigL",
    "Static",
    "StraightThrough",
    "for_run",
    "get",
]
