"""Patterns: which weights share one score, and how scores become a mask.

A kernel is seen as a matrix with rows = inputs (flattened) and columns = outputs
(flattened). A pattern divides the matrix into units, each with one score.
"""

import dataclasses
import math
from typing import Any, NoReturn

import keras
from keras import ops

from keras_es._arguments import instance, is_integer
from keras_es.ops import selection

Shape = tuple[int, ...]


def register(cls: type) -> type:
    """Register a frozen pattern with Keras, so that it saves by its fields.

    Raises:
        ValueError: If it is no class of a pattern.
    """
    if not (isinstance(cls, type) and issubclass(cls, Pattern)):
        raise ValueError(
            "`register` must be put above a subclass of keras_es.patterns.Pattern. "
            f"Received: {cls!r}"
        )
    return keras.saving.register_keras_serializable(package="keras_es")(cls)


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Base class of patterns.

    Override `units_shape`, and unless each weight is a unit `expand` and `reduce`; a
    pattern that does not choose the best k of all units overrides `decode` and
    `unit_count` as well (see `NByM`).
    """

    @property
    def group(self) -> str | None:
        """Name of the group whose weights share one mask; None: a mask of its own."""
        return None

    def units_shape(self, matrix_shape: Shape) -> Shape:
        """Return the shape of the scores for a kernel matrix (rows, columns).

        Raises:
            ValueError: If the pattern does not divide the matrix.
        """
        raise NotImplementedError

    def expand(self, units: Any, matrix_shape: Shape) -> Any:
        """Spread values of units [units_shape] over the matrix (rows, columns)."""
        return units

    def reduce(self, matrix: Any) -> Any:
        """Sum a matrix (rows, columns) over each unit; the adjoint of `expand`."""
        return matrix

    def unit_count(self, sparsity: float, matrix_shape: Shape) -> int:
        """Return the number of active units: round((1 - sparsity) * units), >= 1."""
        total = math.prod(self.units_shape(matrix_shape))
        return max(1, round((1.0 - sparsity) * total))

    def decode(self, scores: Any, count: Any) -> Any:
        """Turn scores [units_shape] into booleans with exactly `count` true.

        Args:
            scores: float32 tensor [units_shape].
            count: `unit_count`, or what `whole_count` returned.
        """
        return selection.top_k_mask(scores, count)

    def decode_near(self, scores: Any, count: Any, start: Any) -> tuple[Any, Any]:
        """Do what `decode` does, beginning where the last threshold was.

        Args:
            scores: float32 tensor [units_shape].
            count: As for `decode`.
            start: float32 [2], what the last call returned (see
                `keras_es.ops.selection.top_k_near`).

        Returns:
            (units, start): what `decode` returns, and `start` of the next call.
        """
        if type(self).decode is not Pattern.decode:
            return self.decode(scores, count), start
        return selection.top_k_near(scores, count, start)

    def whole_count(self, count: Any, matrix_shape: Shape) -> Any:
        """Return the number of units, at least 1, that `decode` can choose next to one.

        Args:
            count: float64 scalar tensor.
            matrix_shape: (rows, columns).

        Returns:
            int64 scalar tensor.
        """
        return ops.cast(ops.maximum(ops.round(count), 1.0), "int64")

    def get_config(self) -> dict[str, Any]:
        """Return the fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Pattern":
        """Make the pattern from its fields."""
        return cls(**config)

    def _refuse(self, matrix_shape: Shape, need: str) -> NoReturn:
        raise ValueError(
            f"The pattern {self} needs {need}; the kernel seen as a matrix has shape "
            f"{tuple(matrix_shape)} (inputs, outputs). Choose another pattern for "
            f"this layer or exclude it. Received: pattern={self}"
        )


@register
@dataclasses.dataclass(frozen=True)
class Unstructured(Pattern):
    """Every weight has its own score.

    Example:

    >>> Unstructured().units_shape((784, 300))
    (784, 300)
    """

    def units_shape(self, matrix_shape: Shape) -> Shape:
        """Return the matrix shape itself."""
        return tuple(matrix_shape)


@register
@dataclasses.dataclass(frozen=True)
class Block(Pattern):
    """Blocks of `rows` x `cols` weights live or die together.

    Args:
        rows: Positive integer that divides the number of inputs.
        cols: Positive integer that divides the number of outputs.

    Example:

    >>> Block(16, 1).units_shape((784, 300))
    (49, 300)
    """

    rows: int
    cols: int

    def __post_init__(self):
        """Check the sizes."""
        for name in ("rows", "cols"):
            value = getattr(self, name)
            if not is_integer(value) or value < 1:
                raise ValueError(
                    f"`{name}` of Block must be a positive integer. "
                    f"Received: {name}={value!r}"
                )
            object.__setattr__(self, name, int(value))  # it may be one of NumPy

    def units_shape(self, matrix_shape: Shape) -> Shape:
        """Return (rows / block rows, columns / block columns)."""
        height, width = matrix_shape
        if height % self.rows or width % self.cols:
            self._refuse(
                matrix_shape,
                f"inputs divisible by {self.rows} and outputs divisible by {self.cols}",
            )
        return (height // self.rows, width // self.cols)

    def expand(self, units: Any, matrix_shape: Shape) -> Any:
        """Repeat each unit over its block."""
        height, width = self.units_shape(matrix_shape)
        units = ops.broadcast_to(
            ops.reshape(units, (height, 1, width, 1)),
            (height, self.rows, width, self.cols),
        )
        return ops.reshape(units, tuple(matrix_shape))

    def reduce(self, matrix: Any) -> Any:
        """Sum over each block."""
        height, width = self.units_shape(matrix.shape)
        blocks = ops.reshape(matrix, (height, self.rows, width, self.cols))
        return ops.sum(blocks, axis=(1, 3))


@register
@dataclasses.dataclass(frozen=True)
class Channel(Pattern):
    """A whole output (a column: a unit, a filter, a depthwise filter) is one unit.

    Weights whose patterns name the same group have one mask: what a residual sum adds
    up loses the same channels in each branch, and `strip_masks(compact=True)` can then
    remove them. Units are chosen by the mean of the group's scores (or magnitudes, or
    gradients). The weights need as many outputs and the same sparsity; of frozen layers
    masks stay. `keras_es.channel_groups(model)` finds the groups of a graph.

    Args:
        group: Name of the group, or None.

    Example:

    >>> Channel().units_shape((25, 16))
    (16,)
    >>> Channel(group="stage 1")
    Channel(group='stage 1')
    """

    group: str | None = None

    def __post_init__(self):
        """Check the name."""
        if not (self.group is None or isinstance(self.group, str) and self.group):
            raise ValueError(
                "`group` of Channel must be a name, a string that is not empty, or "
                f"None. Received: group={self.group!r}"
            )

    def __repr__(self):
        """Return how it is made."""
        return "Channel()" if self.group is None else f"Channel(group={self.group!r})"

    def units_shape(self, matrix_shape: Shape) -> Shape:
        """Return (outputs,)."""
        return (matrix_shape[1],)

    def expand(self, units: Any, matrix_shape: Shape) -> Any:
        """Repeat each unit over its column."""
        return ops.broadcast_to(ops.expand_dims(units, 0), tuple(matrix_shape))

    def reduce(self, matrix: Any) -> Any:
        """Sum over each column."""
        return ops.sum(matrix, axis=0)


@register
@dataclasses.dataclass(frozen=True)
class Rows(Pattern):
    """A whole input (a row: a word of a vocabulary, what one feature says) is one unit.

    Example:

    >>> Rows().units_shape((1000, 16))
    (1000,)
    """

    def units_shape(self, matrix_shape: Shape) -> Shape:
        """Return (inputs,)."""
        return (matrix_shape[0],)

    def expand(self, units: Any, matrix_shape: Shape) -> Any:
        """Repeat each unit over its row."""
        return ops.broadcast_to(ops.expand_dims(units, 1), tuple(matrix_shape))

    def reduce(self, matrix: Any) -> Any:
        """Sum over each row."""
        return ops.sum(matrix, axis=1)


@register
@dataclasses.dataclass(frozen=True)
class NByM(Pattern):
    """Exactly n non-zeros in each group of m consecutive inputs of an output.

    The sparsity is 1 - n/m, given by the pattern alone.

    Args:
        n: Integer, 1 <= n <= m.
        m: Integer that divides the number of inputs, at most 32.

    Example:

    >>> NByM(2, 4).unit_count(0.5, (8, 3))
    12
    """

    n: int
    m: int

    def __post_init__(self):
        """Check the sizes."""
        fine = is_integer(self.n) and is_integer(self.m)
        if not fine or not 1 <= self.n <= self.m <= 32:
            raise ValueError(
                "NByM needs integers 1 <= n <= m <= 32. "
                f"Received: n={self.n!r}, m={self.m!r}"
            )
        object.__setattr__(self, "n", int(self.n))
        object.__setattr__(self, "m", int(self.m))

    @property
    def sparsity(self) -> float:
        """1 - n/m."""
        return 1.0 - self.n / self.m

    def units_shape(self, matrix_shape: Shape) -> Shape:
        """Return the matrix shape: each weight has a score."""
        if matrix_shape[0] % self.m:
            self._refuse(matrix_shape, f"inputs divisible by m={self.m}")
        return tuple(matrix_shape)

    def unit_count(self, sparsity: float, matrix_shape: Shape) -> int:
        """Return n/m of all weights; `sparsity` must say the same."""
        height, width = self.units_shape(matrix_shape)
        if abs(sparsity - self.sparsity) > 1e-6:
            raise ValueError(
                f"{self} fixes the sparsity at 1 - n/m = {self.sparsity:g}; leave "
                f"`sparsity` out or give that. Received: sparsity={sparsity}"
            )
        return height * width * self.n // self.m

    def whole_count(self, count: Any, matrix_shape: Shape) -> Any:
        """Return a multiple of the number of groups, at least 1 in each."""
        groups = matrix_shape[0] // self.m * matrix_shape[1]
        return super().whole_count(count / groups, matrix_shape) * groups

    def decode(self, scores: Any, count: Any) -> Any:
        """Mark the best of each group, as many in each: n with `unit_count`."""
        height, width = scores.shape
        groups = ops.reshape(scores, (height // self.m, self.m, width))
        in_group = count // (height // self.m * width)
        if not isinstance(count, int):
            in_group = ops.cast(in_group, "int32")
        chosen = selection.top_n_in_groups(groups, in_group, axis=1)
        return ops.reshape(chosen, (height, width))


def get(identifier: Any) -> Pattern:
    """Return a pattern: None is Unstructured(), a config is deserialized.

    Raises:
        ValueError: If it is not a pattern.
    """
    if identifier is None:
        return Unstructured()
    wanted = "a keras_es.patterns.Pattern such as Unstructured() or Block(16, 1)"
    return instance(Pattern, wanted)("pattern", identifier)
