"""An optimizer of masks with the schedules that fit a run of known length."""

import dataclasses
import functools

import keras

from keras_es import schedules
from keras_es.layers import tree
from keras_es.optimizers.evolution.open_es import OpenES
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.gradient.gradual_magnitude import GradualMagnitude
from keras_es.optimizers.gradient.scheduled import DropAndGrow
from keras_es.optimizers.options import Falling
from keras_es.optimizers.score_optimizer import BernoulliStrategy, ScoreGradient
from keras_es.optimizers.search.turns import sampling_is_cheap

REST = 0.75
"""Share of a run after which scheduled masks rest, as in RigL."""

SEARCHED, FALLING = 0.6, 0.4
"""Shares of a run in which losses alone move masks, and in which masks get sparse."""

PULL = 0.1
"""Share of the way to the magnitudes that scores go in each step, begun dense."""

MOVES = 75
"""Moves of scheduled masks in a run, if that is not more often than every step."""


def for_run(cls, inner_optimizer, model, steps, *, begin_dense=False, **kwargs):
    """Make an optimizer of masks for a run of so many training steps.

    Masks have to settle before a run ends. What that takes depends on the method:

    - `RigL`, `SET`, `GradualMagnitude`: masks rest after 75 % of the steps, and move 75
      times until then, but not less often than every 100 steps;
    - `StraightThrough`, `GuidedES`, `OpenES`, `BernoulliNES`: the learning rate of the
      scores falls to 0 along a cosine, from three times its constant default. Begun
      dense, it does so in 60 % of the steps, and then the temperature of `GuidedES` and
      `BernoulliNES` is 0: a step is one of `Static`;
    - `OpenES` with few units (one for 16 weights or more, as with blocks and channels)
      or begun dense: sigma falls in a straight line from 2, or begun dense from 0.5
      and with many units from 1, the learning rate of the scores from 0.05 along a
      cosine, and both end after 60 %, from when on a step is one of `Static`;
    - others as they are by default.

    Args:
        cls: Class of the method, such as `keras_es.optimizers.RigL`.
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`), whose own
            schedule is not touched.
        model: The model that will be trained, with masked layers.
        steps: Integer, epochs * steps_per_epoch.
        begin_dense: Whether an `EvolutionStrategy` may begin dense and be as sparse as
            wanted after 40 % of the steps only, so that the weights of every unit are
            trained before the search decides about it, and for 60 % draws its scores
            to the sizes of the units, a tenth of the way in each step at first and
            less and less then (`density=Falling(...)`; `GuidedES` only with few units).
            More accurate at high sparsity, but until then no smaller. Models with
            block-sparse layers cannot, and other methods begin as they always do.
        **kwargs: Further arguments of the method; those here win.

    Returns:
        The optimizer.

    Example:

    >>> dense = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model = keras_es.sparsify(dense, 0.5)
    >>> optimizer = for_run(keras_es.optimizers.RigL, "adam", model, steps=8000)
    >>> schedule = optimizer.update_schedule
    >>> schedule.end_step, schedule.update_every
    (6000, 80)
    """
    masked = tree.masked_weights(model)
    run = _Run(
        cls=cls,
        model=model,
        steps=steps,
        dense=begin_dense
        and issubclass(cls, EvolutionStrategy)
        and all(m.stores_inactive for m in masked),
        few=sampling_is_cheap(masked),
        given=kwargs,
    )
    arguments = _arguments(run)
    if run.dense:
        arguments |= _from_dense(run)
    arguments = {k: v for k, v in arguments.items() if k not in kwargs}
    return cls(inner_optimizer, **arguments, **kwargs)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What is known of a run.

    Attributes:
        cls: Class of the method.
        model: The model that will be trained.
        steps: Training steps.
        dense: Whether the search begins dense.
        few: Whether there are few units for the weights.
        given: Arguments of the user.
    """

    cls: type
    model: keras.Model
    steps: int
    dense: bool
    few: bool
    given: dict

    @functools.cached_property
    def default(self):
        """Such a method as it is for a run of unknown length."""
        return self.cls("sgd", **self.given)

    @functools.cached_property
    def generation(self):
        """Steps in a generation."""
        return self.default.steps_per_generation(self.model)

    @property
    def generations(self):
        """Generations in the run."""
        return -(-self.steps // self.generation)

    @property
    def searched(self):
        """Generations in which losses alone move masks."""
        return max(1, int(SEARCHED * self.generations))


def _arguments(run):
    """Return the arguments that follow from the length of a run, given or not."""
    if "end_step" in run.given:
        return {}
    end_step = max(1, int(REST * run.steps))
    update_every = min(100, max(1, end_step // MOVES))
    if issubclass(run.cls, DropAndGrow):
        schedule = schedules.CosineUpdates(end_step, update_every=update_every)
        arguments = {"update_schedule": schedule}
    elif issubclass(run.cls, GradualMagnitude):
        schedule = schedules.PolynomialSparsity(end_step, update_every=update_every)
        arguments = {"sparsity_schedule": schedule}
    elif issubclass(run.cls, OpenES) and (run.dense or run.few):
        arguments = _search_that_ends(run)
    elif issubclass(run.cls, ScoreGradient):
        arguments = _scores_that_settle(run)
    else:
        arguments = {}
    return arguments


def _from_dense(run):
    """Return arguments of a search that begins dense and follows magnitudes."""
    falling, pull = schedules.PolynomialSparsity(max(1, int(FALLING * run.steps))), None
    # Of a single weight, the backward pass says more than its magnitude.
    if run.few or not run.cls.needs_guidance:
        share = 1.0 - (1.0 - PULL) ** run.generation
        pull = keras.optimizers.schedules.PolynomialDecay(share, run.searched, 0.0)
    return {"density": Falling(falling, pull)}


def _scores_that_settle(run):
    """Return arguments of scores whose learning rate falls to 0."""
    schedule = keras.optimizers.schedules
    generations = run.generations
    arguments = {}
    if run.dense and issubclass(run.cls, BernoulliStrategy):
        generations = run.searched
        if "sigma" not in run.given:
            # Not a slope: at a lower T a step of the scores would flip more units.
            temperatures = [run.default.sigma, 0.0]
            arguments["sigma"] = schedule.PiecewiseConstantDecay(
                [generations - 1], temperatures
            )
    # A decay from three times the constant rate moves scores about as far.
    rate = schedule.CosineDecay(3.0 * run.cls.default_score_learning_rate, generations)
    return {**arguments, "score_optimizer": keras.optimizers.Adam(rate)}


def _search_that_ends(run):
    """Return arguments of a search that losses alone can finish before the run ends."""
    sigma = (0.5 if run.few else 1.0) if run.dense else 2.0
    schedule = keras.optimizers.schedules
    return {
        "sigma": schedule.PolynomialDecay(sigma, run.searched, 0.0),
        "score_optimizer": keras.optimizers.Adam(
            schedule.CosineDecay(0.05, run.searched)
        ),
    }
