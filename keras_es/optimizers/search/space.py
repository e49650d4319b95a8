"""What pure evolution moves: all weights, and the scores of masks that can move."""

import keras
import tensorflow as tf

from keras_es.layers import groups

SCORE_SCALE = 10.0
"""Noise of mask scores in units of that of weights: scores begin with variance 1."""


class SearchSpace:
    """The searched variables of a model, and what a member of the population reads.

    Args:
        weights: Trainable variables.
        masked_weights: The `MaskedWeight`s among them.

    Attributes:
        weights: The trainable variables.
        masked: The masked weights whose masks can move; at sparsity 0 they cannot.
        variables: The weights, then the scores of `masked`.
        factors: For each variable, its noise in units of sigma.
    """

    def __init__(self, weights, masked_weights=()):
        self.weights = list(weights)
        self.masked = [m for m in masked_weights if m.unit_count < m.units]
        self.variables = self.weights + [m.mask_scores for m in self.masked]
        self.factors = [1.0] * len(self.weights) + [SCORE_SCALE] * len(self.masked)

    @property
    def means(self):
        """What an optimizer of the mean moves: searched variables that are weights."""
        return self.weights

    @property
    def size(self):
        """Number of coordinates d."""
        return sum(int(v.shape.num_elements()) for v in self.variables)

    def values(self):
        """Return the center: the current values."""
        return [tf.convert_to_tensor(v.value) for v in self.variables]

    def follow_masks(self):
        """Do nothing: masks are searched, or all weights whatever they are."""

    def read_weights(self):
        """Do nothing: the weights themselves are searched."""

    def write_weights(self):
        """Do nothing: what is searched are the weights themselves."""

    def assignments(self, values):
        """Return (variable, tensor) that set weights to new values, a dict by id."""
        return [(w, values[id(w)]) for w in self.weights if id(w) in values]

    def bounded(self, values):
        """Return the values of a member that are not noise around a center.

        What is given as it is must keep to constraints, or a search would go where the
        model's weights may not follow. (Those of masked weights depend on the masks,
        which the member has yet to decode.)

        Args:
            values: List of tensors, one for each searched variable.
        """
        masked = {id(m.kernel) for m in self.masked}
        return [
            x if id(v) in masked else constrained(v, x)
            for v, x in zip(self.variables, values)
        ]

    def overrides(self, values):
        """Return what a member reads, with its masks decoded from its scores.

        Args:
            values: List of (variable, tensor) of searched variables.

        Returns:
            List of (variable, tensor) for a `keras.StatelessScope`.
        """
        if not self.masked:
            return list(values)
        found = {id(v): value for v, value in values}
        mapping, kernels = [], {id(m.kernel) for m in self.masked}
        scores = {id(m.mask_scores) for m in self.masked}
        decided = groups.agreed(
            self.masked, [found[id(m.mask_scores)] for m in self.masked]
        )
        for masked, value in zip(self.masked, decided):
            units = masked.decode(value)
            kernel, more = masked.member_values(found[id(masked.kernel)], units)
            mapping += [(masked.kernel, kernel), *more]
        return mapping + [
            (v, value)
            for v, value in values
            if id(v) not in kernels and id(v) not in scores
        ]


def constrained(variable, value):
    """Return a value as the constraint of a variable has it, if it has one."""
    constraint = getattr(variable, "constraint", None)
    if constraint is None:
        return value
    return constraint(tf.cast(value, variable.dtype))


def full_dtype(variable):
    """Return in which dtype a searched variable is moved: float64, else float32.

    Noise is float32; what it is added to keeps all of its digits.

    Example:

    >>> full_dtype(keras.Variable([1.0], dtype="bfloat16"))
    'float32'
    """
    return keras.backend.result_type(variable.dtype, "float32")
