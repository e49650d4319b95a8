"""An optimizer of masks with the schedules that fit a run of known length."""

import dataclasses
import functools

import keras

from keras_es._arguments import boolean, integer
from keras_es.layers import tree
from keras_es.optimizers import registry
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.search.turns import sampling_is_cheap

SEARCHED = 0.6
"""Share of a run in which losses alone move masks."""


def for_run(cls, inner_optimizer, model, steps, *, begin_dense=False, **kwargs):
    """Make an optimizer of masks for a run of so many training steps.

    Masks have to settle before a run ends. What that takes depends on the method:

    - `RigL`, `SET`, `GradualMagnitude`: masks rest after 75 % of the steps, and move 75
      times until then, but not less often than every 100 steps;
    - `StraightThrough`, `GuidedNES`, `OpenES`, `BernoulliNES`: the learning rate of the
      scores falls to 0 along a cosine, from three times its constant default. Begun
      dense, it does so in 60 % of the steps; the temperature of `GuidedNES` and
      `BernoulliNES` is 0 then: a step is one of `Static`;
    - `OpenES` with few units (one for 16 weights or more, as with blocks and channels)
      or begun dense: sigma falls in a straight line from 2, or begun dense from 0.5
      and with many units from 1, the learning rate of the scores from 0.05 along a
      cosine, and both end after 60 %, from when on a step is one of `Static`;
    - `GuidedES`: the rate of the criterion falls to 0 in a straight line until 75 %;
      begun dense, the network is as sparse as wanted after half of the steps;
    - others as they are by default.

    Args:
        cls: Class of the method, such as `keras_es.optimizers.RigL`, or its name.
        inner_optimizer: Optimizer of the weights (see `MaskOptimizer`), whose own
            schedule is not touched.
        model: The model that will be trained, with masked layers.
        steps: Integer of at least 1, epochs * steps_per_epoch.
        begin_dense: Whether an `EvolutionStrategy` may begin dense and be as sparse as
            wanted after 40 % of the steps only, so that the weights of every unit are
            trained before the search decides about it, and for 60 % draws its scores
            to the sizes of the units, a tenth of the way in each step at first and
            less and less then (`density=Falling(...)`; `GuidedNES` if units are few).
            More accurate at high sparsity, but until then no smaller. Models with
            block-sparse layers cannot, and other methods begin as they always do.
        **kwargs: Further arguments of the method; those here win.

    Returns:
        The optimizer.

    Raises:
        ValueError: If an argument is of another kind or out of range.

    Example:

    >>> dense = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> model = keras_es.sparsify(dense, 0.5)
    >>> optimizer = for_run(keras_es.optimizers.RigL, "adam", model, steps=8000)
    >>> schedule = optimizer.update_schedule
    >>> schedule.end_step, schedule.update_every
    (6000, 80)
    """
    cls = _method(cls)
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`model` must be the Keras model that will be trained, with masked "
            f"layers. Received: model={model!r}"
        )
    steps, begin_dense = integer(1)("steps", steps), boolean("begin_dense", begin_dense)
    masked = tree.masked_weights(model)
    run = Run(
        cls=cls,
        model=model,
        steps=steps,
        dense=begin_dense and all(m.stores_inactive for m in masked),
        few=sampling_is_cheap(masked),
        given=kwargs,
    )
    settled = {k: v for k, v in cls.settle(run).items() if k not in kwargs}
    return cls(inner_optimizer, **settled, **kwargs)


def _method(cls):
    """Return the class of a method, from its name too."""
    if isinstance(cls, str):
        cls = registry.get(cls)
    if not (isinstance(cls, type) and issubclass(cls, MaskOptimizer)):
        raise ValueError(
            "`cls` must be a class of keras_es.optimizers that moves masks, or its "
            f"name, such as {sorted(registry.OPTIMIZERS)}. Received: cls={cls!r}"
        )
    if not cls.trains_by_gradients:
        raise ValueError(
            f"{cls.__name__} evolves the weights: it has no schedule that would have "
            f"to fit a run. Make it by itself. Received: cls={cls.__name__}"
        )
    return cls


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of a run, for the `settle` of a method.

    Attributes:
        cls: Class of the method.
        model: The model that will be trained.
        steps: Training steps.
        dense: Whether the search begins dense, if it can.
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
