"""Ways of moving masks, each a Keras optimizer that wraps the one of the weights."""

from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.directional.finite_difference import FiniteDifference
from keras_es.optimizers.directional.forward_gradient import ForwardGradient
from keras_es.optimizers.evolution.alopex import Alopex
from keras_es.optimizers.evolution.bernoulli_nes import BernoulliNES
from keras_es.optimizers.evolution.genetic import GeneticAlgorithm
from keras_es.optimizers.evolution.guided_es import GuidedES
from keras_es.optimizers.evolution.guided_nes import GuidedNES
from keras_es.optimizers.evolution.open_es import OpenES
from keras_es.optimizers.evolution.pgpe import PGPE
from keras_es.optimizers.evolution.qes import QES
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
from keras_es.optimizers.registry import OPTIMIZERS, PURE, get, register

__all__ = [
    "OPTIMIZERS",
    "PGPE",
    "PURE",
    "QES",
    "SET",
    "SNES",
    "Alopex",
    "BernoulliNES",
    "Chunks",
    "GuidedES",
    "EvolutionStrategy",
    "Falling",
    "FiniteDifference",
    "ForwardGradient",
    "GeneticAlgorithm",
    "GradualMagnitude",
    "GuidedNES",
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
    "register",
]
