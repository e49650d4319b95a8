"""What masked and block-sparse weights have in common."""

import abc
import math
from typing import Any

import keras

from keras_es.patterns import Pattern


class SparseWeight(abc.ABC):
    """One weight of a layer whose mask is decoded from scores.

    The optimizers of masks know no more of a weight than this class says.

    Attributes:
        layer: The layer.
        attribute: "kernel" or "recurrent_kernel".
        kernel: Trainable Keras variable.
        mask_scores: float32 variable, one score for each unit of the pattern.
        pattern: The `keras_es.patterns.Pattern`.
        sparsity: Wanted share of zeros, in [0, 1).
        matrix_shape: The dense kernel seen as (inputs, outputs).
        stores_inactive: Whether inactive units keep a latent value.
        unit_count: Number of active units that `sparsity` asks for, exact.
    """

    layer: keras.layers.Layer
    attribute: str
    kernel: keras.Variable
    mask_scores: keras.Variable
    pattern: Pattern
    sparsity: float
    matrix_shape: tuple[int, int]
    stores_inactive: bool
    unit_count: Any

    @property
    def name(self) -> str:
        """Path of the weight, such as "dense/kernel"."""
        return f"{self.layer.path or self.layer.name}/{self.attribute}"

    @property
    def size(self) -> int:
        """Number of weights of the dense kernel."""
        return math.prod(self.matrix_shape)

    @property
    def units(self) -> int:
        """Number of units, the dimension of the search."""
        return math.prod(self.mask_scores.shape)

    @property
    @abc.abstractmethod
    def nnz(self) -> int:
        """Exact number of non-zero weights that `sparsity` asks for."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel."""

    @property
    @abc.abstractmethod
    def choice(self) -> tuple[keras.Variable, keras.Variable]:
        """The variables that say what is active, and by which scores; no weights."""

    @abc.abstractmethod
    def deployed_nnz(self) -> int:
        """Return the number of weights that the deployed mask keeps, as it is now."""

    @abc.abstractmethod
    def deployed_mask(self) -> Any:
        """Return the deployed mask, boolean: of the kernel's shape, or of its units.

        Of units where only active ones are stored, for nothing of the dense size is
        made there.
        """

    @abc.abstractmethod
    def stored_units(self) -> Any:
        """Return the deployed unit mask, boolean of the shape of the scores."""

    @abc.abstractmethod
    def decode(self, scores: Any, count: Any = None) -> Any:
        """Turn scores into a boolean unit mask with exactly `unit_count` true."""

    @abc.abstractmethod
    def member_values(self, value: Any, units: Any) -> tuple[Any, list]:
        """Return what a member reads with a unit mask, None for the deployed one."""

    @abc.abstractmethod
    def active(self, units: Any) -> Any:
        """Return where a member's gradient reaches the weight."""

    @abc.abstractmethod
    def unit_gradient(self, gradient: Any, value: Any, units: Any) -> Any:
        """Return dL/dm of each unit: g * w summed over it, where it is known."""

    @abc.abstractmethod
    def unit_magnitude(self, value: Any) -> Any:
        """Return the sum of |value| over each unit, for a tensor like the kernel."""

    @abc.abstractmethod
    def deploy(self, scores: Any, units: Any, slots: Any) -> tuple[list, Any]:
        """Return what sets new scores and their mask, and how many weights change."""

    @abc.abstractmethod
    def effective_value(self) -> Any:
        """Return the dense kernel as the layer acts: zero where the mask is."""

    @property
    def count_name(self) -> str:
        """Name under which a file has the number of units that `sparsity` asks for."""
        return self.mask_scores.name.replace("mask_scores", "unit_count")

    def check_set(self, store: Any, denser: bool) -> None:
        """Refuse what `set_weights` brings of this weight if it does not fit.

        Args:
            store: Dict from name of a variable to its value.
            denser: Whether the mask may be denser than asked.

        Raises:
            ValueError: If the mask is of another sparsity or pattern.
        """
        self.check_loaded(store)

    @abc.abstractmethod
    def check_loaded(self, store: Any) -> None:
        """Refuse what a file has of this weight if it does not fit.

        Args:
            store: Keras's store of the layer, from name of a variable to its value.

        Raises:
            ValueError: If the file's mask is of another sparsity or pattern.
        """
