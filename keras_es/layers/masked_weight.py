"""One masked weight: the latent kernel, its mask and its scores."""

import contextlib
import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_es import _compat, patterns
from keras_es.layers.sparse_weight import SparseWeight
from keras_es.ops import selection


@contextlib.contextmanager
def effective_weights():
    """Within this scope latent kernels are already multiplied by a member's mask.

    The train step maps each latent kernel to `kernel * sampled mask`; masking it
    once more with the deployed mask would be wrong and would cost a pass.
    """
    before = getattr(_compat.local, "effective", False)
    _compat.local.effective = True
    try:
        yield
    finally:
        _compat.local.effective = before


def apply_mask(value, kernel_mask):
    """Return `value` where the mask is true, else 0 (identity in a member's scope)."""
    if getattr(_compat.local, "effective", False):
        return ops.convert_to_tensor(value)
    value = ops.convert_to_tensor(value)
    # where, not a product: a masked-out weight that is NaN must not reach the model.
    return ops.where(kernel_mask, value, ops.zeros_like(value))


class EffectiveRegularizer:
    """A regularizer of the effective kernel: masked-out weights cost nothing."""

    def __init__(self, regularizer, kernel_mask):
        self.regularizer = regularizer
        self.kernel_mask = kernel_mask

    def __call__(self, x):
        return self.regularizer(apply_mask(x, self.kernel_mask))


class EffectiveConstraint:
    """A constraint of the effective kernel, and of masked-out weights by themselves.

    Masked-out weights that rest would keep the norm of a column above its bound, and
    the active ones would shrink in each step, down to nothing.
    """

    def __init__(self, constraint, kernel_mask):
        self.constraint = constraint
        self.kernel_mask = kernel_mask

    def __call__(self, x):
        x, mask = ops.convert_to_tensor(x), self.kernel_mask.value
        return ops.where(mask, self.of(x, mask), self.of(x, ops.logical_not(mask)))

    def of(self, x, chosen):
        """Return the weights that are `chosen`, constrained as if others were 0."""
        return self.constraint(ops.where(chosen, x, ops.zeros_like(x)))


@dataclasses.dataclass(eq=False)
class MaskedWeight(SparseWeight):
    """One masked weight of one layer: the latent kernel, its mask and its scores.

    Attributes:
        layer: The masked layer.
        attribute: "kernel" or "recurrent_kernel".
        kernel: Latent Keras variable (trainable).
        kernel_mask: Boolean variable of the kernel's shape, the deployed mask.
        mask_scores: float32 variable, one score for each unit of the pattern.
        pattern: The `keras_es.patterns.Pattern`.
        sparsity: Wanted share of zeros, in [0, 1).
        matrix_shape: The kernel seen as (inputs, outputs).
        unit_count: Number of active units, exact.
    """

    layer: keras.layers.Layer
    attribute: str
    kernel: keras.Variable
    kernel_mask: keras.Variable
    mask_scores: keras.Variable
    pattern: patterns.Pattern
    sparsity: float
    matrix_shape: tuple[int, int]
    unit_count: int
    stores_inactive = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the kernel."""
        return tuple(self.kernel.shape)

    @property
    def choice(self) -> tuple[keras.Variable, keras.Variable]:
        """The deployed mask and the scores."""
        return self.kernel_mask, self.mask_scores

    @property
    def nnz(self) -> int:
        """Exact number of non-zero weights that `sparsity` asks for.

        The deployed mask has as many (`deployed_nnz`), but for the time in which a
        schedule that begins dense has not ended, and but for `GuidedES`, under which
        weights exchange units and their total is exact.
        """
        return self.size // self.units * self.unit_count

    def deployed_nnz(self) -> int:
        """Return the number of weights that the deployed mask keeps, as it is now."""
        return int(self.kernel_mask.numpy().sum())

    def deployed_mask(self) -> Any:
        """Return the deployed mask, boolean of the kernel's shape."""
        return ops.convert_to_tensor(self.kernel_mask.value)

    def decode(self, scores, count=None):
        """Turn scores into a boolean unit mask with exactly `unit_count` true.

        Args:
            scores: Scores of the units.
            count: Another number of units than `unit_count`, see
                `Pattern.whole_count`.
        """
        return self.pattern.decode(scores, self.unit_count if count is None else count)

    def stored_units(self):
        """Return the deployed unit mask, boolean of the shape of the scores."""
        return self.reduce(ops.cast(self.kernel_mask.value, "float32")) > 0.0

    def expand(self, units):
        """Spread values of units over the kernel's shape."""
        return ops.reshape(self.pattern.expand(units, self.matrix_shape), self.shape)

    def reduce(self, values):
        """Sum values of the kernel's shape over each unit."""
        return self.pattern.reduce(ops.reshape(values, self.matrix_shape))

    def member_values(self, value, units):
        """Return what a member with the unit mask `units` reads.

        Args:
            value: The latent kernel as a tensor.
            units: Boolean unit mask, or None for the deployed one.

        Returns:
            The effective kernel, and a list of (variable, tensor) of what else the
            layer has to read.
        """
        return ops.where(self.active(units), value, ops.zeros_like(value)), []

    def active(self, units):
        """Return where a member's gradient reaches the weight, of the kernel's shape.

        Args:
            units: Boolean unit mask, or None for the deployed one.
        """
        return self.deployed_mask() if units is None else self.expand(units)

    def unit_gradient(self, gradient, value, units):
        """Return dL/dm of each unit: g * w summed over it, active or not.

        Args:
            gradient: g, the gradient at the effective kernel.
            value: w, the latent kernel.
            units: Boolean unit mask of the member.
        """
        return self.reduce(gradient * value)

    def unit_magnitude(self, value):
        """Return the sum of |value| over each unit, for a tensor like the kernel."""
        return ops.cast(self.reduce(ops.abs(value)), "float32")

    def deploy(self, scores, units, slots):
        """Return what sets new scores and their decoded mask.

        Args:
            scores: New scores.
            units: Boolean unit mask decoded from them.
            slots: Variables of the optimizer with the kernel's shape; they stay.

        Returns:
            List of (variable, tensor), and the number of weights that changed.
        """
        mask = self.expand(units)
        changed = ops.not_equal(mask, self.kernel_mask.value)
        assignments = [(self.mask_scores, scores), (self.kernel_mask, mask)]
        changed = selection.count_true(ops.reshape(changed, (-1,)))
        return assignments, ops.cast(changed, "float32")

    def grown(self, units):
        """Return where `units` is active and the deployed mask is not, as the kernel.

        Args:
            units: Boolean unit mask that is about to be deployed.
        """
        off = ops.logical_not(self.kernel_mask.value)
        return ops.logical_and(self.expand(units), off)

    def constrained(self, value, units):
        """Return the kernel with its constraint on the weights of a unit mask.

        Args:
            value: The latent kernel as a tensor.
            units: Boolean unit mask that is about to be deployed. Where it is the
                deployed one nothing changes.
        """
        constraint = self.kernel.constraint
        if not isinstance(constraint, EffectiveConstraint):
            return value
        mask = self.expand(units)
        moved = ops.any(ops.not_equal(mask, self.kernel_mask.value))
        bounded = constraint.of(value, mask)
        return ops.where(ops.logical_and(mask, moved), bounded, value)

    def effective_value(self):
        """Return the effective kernel: latent kernel times deployed mask."""
        return apply_mask(self.kernel, self.kernel_mask)

    def check_set(self, store: Any, denser: bool) -> None:
        """Refuse what `set_weights` brings of this weight if it does not fit."""
        mask = np.asarray(store[self.kernel_mask.name], "bool")
        if not denser and mask.shape == self.shape:
            units = self._active_units(mask)
            store = {**store, self.count_name: int(units.sum())}
        self.check_loaded(store)

    def _active_units(self, mask: Any) -> Any:
        """Return which units have a weight under a mask, as NumPy."""
        counts = self.reduce(ops.convert_to_tensor(mask.astype("float32")))
        return np.asarray(counts) > 0.0

    def check_loaded(self, store: Any) -> None:
        """Refuse a file whose mask is of another sparsity or breaks the pattern.

        During a schedule that begins dense a mask has more units than in the end, and
        a file of that time is fine: what the file says of the end is compared.

        Raises:
            ValueError: If it is.
        """
        mask = np.asarray(store[self.kernel_mask.name], "bool")
        if mask.shape != self.shape:
            return  # Keras says so when the variable is assigned.
        units = self._active_units(mask)
        count = int(units.sum())
        asked = count if count < self.unit_count else self.unit_count
        if self.count_name in store.keys():
            asked = int(np.asarray(store[self.count_name]))
        own = 1 - self.unit_count / self.units  # a unit stays at any sparsity
        if asked != self.unit_count:
            raise ValueError(
                f"The weights of {self.name!r} have {asked} of {self.units} units, a "
                f"sparsity of {1 - asked / self.units:.4g}; this layer has "
                f"{self.unit_count}, a sparsity of {own:.4g}. Load them into "
                "a model that `sparsify` made with the same sparsity; those of a "
                "schedule that begins dense into one compiled with it. "
                f"Received: {asked} units, expected {self.unit_count}"
            )
        fitting = self.decode(ops.convert_to_tensor(units.astype("float32")), count)
        if not np.array_equal(self.expand(fitting), mask):
            raise ValueError(
                f"The weights of {self.name!r} have a mask that is none of "
                f"{self.pattern}. Load them into a model with the pattern that they "
                f"were saved with. Received: a mask with {int(mask.sum())} non-zeros"
            )


class InitialMask:
    """Initializer of a mask: the decoded first scores, drawn again from their seed.

    An initializer and not an assignment, because Keras defers initialization when a
    layer is built in a symbolic call.
    """

    def __init__(self, pattern, count, matrix_shape, units_shape, seed):
        self.scores = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
        self.pattern, self.count = pattern, count
        self.matrix_shape, self.units_shape = matrix_shape, units_shape

    def __call__(self, shape, dtype=None):
        scores = self.scores(self.units_shape, dtype="float32")
        units = self.pattern.decode(scores, self.count)
        return ops.reshape(self.pattern.expand(units, self.matrix_shape), shape)


def refresh_mask(masked):
    """Set the deployed mask to the decoded scores."""
    masked.kernel_mask.assign(masked.expand(masked.decode(masked.mask_scores.value)))
