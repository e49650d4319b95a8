"""When masks move, and how far: sparsity over steps, and updates of masks at steps.

A step is counted when it is done: after the first step of training `step` is 1. All
schedules take Python numbers or tensors and compute in float64, so that counts of units
do not depend on rounding.
"""

import math
from typing import Any

import keras
from keras import ops

from keras_es._arguments import decay, instance, integer, number


def _register(cls):
    return keras.saving.register_keras_serializable(package="keras_es")(cls)


def _check_step(name: str, value: Any, minimum: int = 0) -> int:
    return integer(minimum, "a number of training steps")(name, value)


_at_least_1 = number(lambda x: x >= 1, "a number in [1, inf)")


def _check_order(begin_step, end_step):
    if end_step <= begin_step:
        raise ValueError(
            "`end_step` must be larger than `begin_step`. Received: "
            f"begin_step={begin_step}, end_step={end_step}"
        )


def _is_multiple(step, begin_step, every):
    passed = ops.cast(step, "int64") - begin_step
    return ops.logical_and(passed > 0, ops.equal(passed % every, 0))


class _Schedule:
    """Configuration that all schedules share."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Schedule":
        """Make the schedule from its config."""
        return cls(**config)


class SparsitySchedule(_Schedule):
    """Base of schedules that go from a first sparsity s_i to the one of the weight s_f.

        s_t = s_f + (s_i - s_f) * remaining(t).

    Override `remaining` and `is_due`, and set `initial_sparsity` and `end_step`.
    """

    initial_sparsity = 0.0
    end_step = 0

    def remaining(self, step: Any) -> Any:
        """Return the share of the way that is left: 1 at first, exactly 0 at the end.

        Args:
            step: Number of steps done.

        Returns:
            float64 scalar in [0, 1].
        """
        raise NotImplementedError

    def is_due(self, step: Any) -> Any:
        """Tell whether masks have to follow after this step, boolean scalar."""
        raise NotImplementedError

    def __call__(self, step: Any, sparsity: float) -> Any:
        """Return s_t of a weight whose final sparsity is `sparsity`."""
        return sparsity + (self.initial_sparsity - sparsity) * self.remaining(step)


@_register
class ConstantSparsity(SparsitySchedule):
    """The wanted sparsity from the first step on.

    Example:

    >>> float(ConstantSparsity()(0, 0.9))
    0.9
    """

    def remaining(self, step: Any) -> Any:
        """Return 0."""
        return ops.zeros((), "float64")

    def is_due(self, step: Any) -> Any:
        """Return False."""
        return ops.zeros((), "bool")


@_register
class OneShot(SparsitySchedule):
    """Nothing before a step, everything at it.

    Args:
        end_step: Number of steps after which masks take their final sparsity, >= 1.
        initial_sparsity: Sparsity before, in [0, 1).

    Example:

    >>> schedule = OneShot(100)
    >>> float(schedule(99, 0.9)), float(schedule(100, 0.9))
    (0.0, 0.9)
    """

    def __init__(self, end_step: int, initial_sparsity: float = 0.0) -> None:
        self.end_step = _check_step("end_step", end_step, 1)
        self.initial_sparsity = decay("initial_sparsity", initial_sparsity)

    def remaining(self, step: Any) -> Any:
        """Return 1 before the step, then 0."""
        return ops.cast(ops.cast(step, "int64") < self.end_step, "float64")

    def is_due(self, step: Any) -> Any:
        """Tell whether this is the step."""
        return ops.equal(ops.cast(step, "int64"), self.end_step)


@_register
class PolynomialSparsity(SparsitySchedule):
    """The schedule of gradual pruning: fast at first, slow towards the end.

        s_t = s_f + (s_i - s_f) (1 - (t - t_0)/(t_end - t_0))**power.

    Args:
        end_step: t_end, from which on the sparsity is final. Leave some of training
            for the weights to recover: 75 % of all steps,
            `int(0.75 * epochs * steps_per_epoch)`, is a good choice.
        begin_step: t_0 >= 0, below `end_step`.
        initial_sparsity: s_i in [0, 1).
        power: Exponent, at least 1.
        update_every: Masks follow each time so many steps have passed since t_0, and
            at `end_step`.

    Example:

    >>> schedule = PolynomialSparsity(end_step=1000)
    >>> [round(float(schedule(step, 0.9)), 3) for step in (0, 500, 1000, 2000)]
    [0.0, 0.787, 0.9, 0.9]

    References:
        Zhu, Gupta 2017, To prune, or not to prune, arXiv 1710.01878, equation 1.
    """

    def __init__(
        self,
        end_step: int,
        begin_step: int = 0,
        initial_sparsity: float = 0.0,
        power: float = 3.0,
        update_every: int = 100,
    ) -> None:
        self.end_step = _check_step("end_step", end_step, 1)
        self.begin_step = _check_step("begin_step", begin_step)
        _check_order(begin_step, end_step)
        self.initial_sparsity = decay("initial_sparsity", initial_sparsity)
        self.power = _at_least_1("power", power)
        self.update_every = _check_step("update_every", update_every, 1)

    def remaining(self, step: Any) -> Any:
        """Return (1 - (t - t_0)/(t_end - t_0))**power, within [0, 1]."""
        left = self.end_step - ops.cast(step, "float64")
        left = left / (self.end_step - self.begin_step)
        return ops.power(ops.clip(left, 0.0, 1.0), self.power)

    def is_due(self, step: Any) -> Any:
        """Tell whether masks follow after this step."""
        step = ops.cast(step, "int64")
        regular = _is_multiple(step, self.begin_step, self.update_every)
        regular = ops.logical_and(regular, step < self.end_step)
        return ops.logical_or(regular, ops.equal(step, self.end_step))


class UpdateSchedule(_Schedule):
    """Base of schedules of masks whose number of non-zeros stays.

    At some steps a share of the active units of each weight is replaced. Override
    `__call__`, which gives the share.

    Args:
        drop_fraction: Share alpha in [0, 1).
        update_every: Delta T >= 1, steps between two updates.
        begin_step: Updates come after begin_step + update_every, ... steps.
        end_step: There are none from this step on; None for no end.
    """

    def __init__(
        self,
        drop_fraction: float = 0.3,
        update_every: int = 100,
        begin_step: int = 0,
        end_step: int | None = None,
    ) -> None:
        self.drop_fraction = decay("drop_fraction", drop_fraction)
        self.update_every = _check_step("update_every", update_every, 1)
        self.begin_step = _check_step("begin_step", begin_step)
        if end_step is not None:
            end_step = _check_step("end_step", end_step, 1)
            _check_order(begin_step, end_step)
        self.end_step = end_step

    def is_due(self, step: Any) -> Any:
        """Tell whether masks move after this step, boolean scalar."""
        due = _is_multiple(step, self.begin_step, self.update_every)
        if self.end_step is None:
            return due
        return ops.logical_and(due, ops.cast(step, "int64") < self.end_step)

    def __call__(self, step: Any) -> Any:
        """Return the share of the active units to replace, float64 scalar."""
        raise NotImplementedError


@_register
class ConstantUpdates(UpdateSchedule):
    """The same share alpha at each update.

    Args:
        drop_fraction: Share alpha in [0, 1).
        update_every: Delta T >= 1, steps between two updates.
        begin_step: Updates come after begin_step + update_every, ... steps.
        end_step: There are none from this step on; None for no end.

    Example:

    >>> schedule = ConstantUpdates(0.3, update_every=100)
    >>> float(schedule(700)), bool(schedule.is_due(700)), bool(schedule.is_due(701))
    (0.3, True, False)

    References:
        Mocanu et al. 2018, Scalable training of artificial neural networks with
        adaptive sparse connectivity inspired by network science, arXiv 1707.04780.
    """

    def __call__(self, step: Any) -> Any:
        """Return alpha."""
        return ops.convert_to_tensor(self.drop_fraction, dtype="float64")


@_register
class CosineUpdates(UpdateSchedule):
    """A share that falls to 0: alpha/2 (1 + cos(pi t / T_end)).

    Args:
        end_step: T_end, from which on masks rest. 75 % of all steps,
            `int(0.75 * epochs * steps_per_epoch)`, is the choice of the paper.
        drop_fraction: alpha in [0, 1).
        update_every: Delta T >= 1, steps between two updates.
        begin_step: Updates come after begin_step + update_every, ... steps.

    Example:

    >>> schedule = CosineUpdates(end_step=1000)
    >>> [round(float(schedule(step)), 3) for step in (0, 500, 1000)]
    [0.3, 0.15, 0.0]

    References:
        Evci et al. 2020, Rigging the lottery, arXiv 1911.11134, section 3.
    """

    def __init__(
        self,
        end_step: int,
        drop_fraction: float = 0.3,
        update_every: int = 100,
        begin_step: int = 0,
    ) -> None:
        _check_step("end_step", end_step, 1)
        super().__init__(drop_fraction, update_every, begin_step, end_step)

    def __call__(self, step: Any) -> Any:
        """Return alpha/2 (1 + cos(pi t / T_end))."""
        share = ops.minimum(ops.cast(step, "float64") / self.end_step, 1.0)
        return self.drop_fraction / 2.0 * (1.0 + ops.cos(math.pi * share))


def get(name: str, value: Any, base: type[_Schedule]) -> Any:
    """Return a schedule of a kind, from itself or its config.

    Args:
        name: Name of the argument, for the error.
        value: Schedule or config.
        base: `SparsitySchedule` or `UpdateSchedule`.

    Raises:
        ValueError: If it is not of that kind.
    """
    kinds = " or ".join(cls.__name__ for cls in base.__subclasses__())
    wanted = f"a schedule of keras_es.schedules, such as {kinds}"
    return instance(base, wanted)(name, value)
