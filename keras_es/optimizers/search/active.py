"""What pure evolution moves where masks rest: active weights, and nothing else."""

import numpy as np
import tensorflow as tf

from keras_es.distribution.collectives import assign_all
from keras_es.optimizers.search.space import SearchSpace


class ActiveSpace(SearchSpace):
    """A space without the masked-out weights: each masked weight is a shorter vector.

    Noise, state and updates are of that vector's length. A coordinate has the noise
    that it has among all weights, so that a search of a sparser mask differs by what
    is left out alone.

    Args:
        weights: Trainable variables.
        masked_weights: The masked weights among them, whose masks rest.
        add: Function (shape, dtype, name) that creates a variable of the strategy.
    """

    def __init__(self, weights, masked_weights, add):
        super().__init__(weights)
        self.resting = {id(m.kernel): m for m in masked_weights}
        self.vectors = {
            id(m.kernel): ActiveVector(m, add, i)
            for i, m in enumerate(masked_weights)
            if m.stores_inactive and m.unit_count < m.units
        }
        own = {k: vector.values for k, vector in self.vectors.items()}
        self.variables = [own.get(id(w), w) for w in self.weights]
        self.factors = [1.0] * len(self.variables)

    @property
    def means(self):
        """What an optimizer of the mean moves: searched variables that are weights."""
        return self.variables

    def follow_masks(self):
        """Look where masks are now; call it outside of steps."""
        for vector in self.vectors.values():
            vector.follow_mask()

    def read_weights(self):
        """Set what is searched to the weights as they are, for others set them too."""
        assign_all([(v.values, v.gathered()) for v in self.vectors.values()])

    def write_weights(self):
        """Set the weights to what is searched, for others have set that."""
        assign_all(self.assignments({id(v): v.value for v in self.variables}))

    def assignments(self, values):
        """Return (variable, tensor) that set weights to new values, a dict by id."""
        found = []
        for weight, searched in zip(self.weights, self.variables):
            value = values[id(searched)]
            found.append((searched, value))
            if searched is not weight:
                vector = self.vectors[id(weight)]
                found.append((weight, vector.spread(value, weight.value)))
        return found

    def overrides(self, values):
        """Return what a member reads, under masks as they are."""
        weights = {id(s): w for w, s in zip(self.weights, self.variables)}
        mapping = []
        for searched, value in values:
            weight = weights[id(searched)]
            if searched is not weight:
                value = self.vectors[id(weight)].spread(value)
            elif id(weight) in self.resting:
                value, more = self.resting[id(weight)].member_values(value, None)
                mapping += more
            mapping.append((weight, value))
        return mapping


class ActiveVector:
    """The active entries of one masked weight, in the order of their positions.

    Args:
        masked: A `MaskedWeight`.
        add: See `ActiveSpace`.
        index: Number of the weight, for names.
    """

    def __init__(self, masked, add, index):
        self.masked, self.count = masked, masked.nnz
        self.values = add((self.count,), masked.kernel.dtype, f"active_{index}")
        # Where each is in the weight, and which each entry of the weight is: to gather
        # is fast where to scatter is not.
        self.positions = add((self.count,), "int32", f"active_positions_{index}")
        self.places = add((masked.size,), "int32", f"active_places_{index}")
        self.values.noise_entries = self.positions
        self.values.weight_read = masked.kernel
        self.follow_mask()

    def follow_mask(self):
        """Note where the deployed mask is active, and the weight's values there.

        Raises:
            ValueError: If it has not as many weights as it is to have.
        """
        mask = np.asarray(self.masked.deployed_mask()).reshape(-1)
        positions = np.flatnonzero(mask)
        if len(positions) != self.count:
            raise ValueError(
                "With noise=Active() a mask must have as many weights as its layer was "
                f"made for, here {self.count} of {self.masked.name!r}. "
                f"Received: a mask with {len(positions)}"
            )
        places = np.full(mask.size, self.count, "int32")
        places[positions] = np.arange(self.count)
        self.positions.assign(positions.astype("int32"))
        self.places.assign(places)
        self.values.assign(self.gathered())

    def gathered(self):
        """Return the weight's active values."""
        kernel = tf.convert_to_tensor(self.masked.kernel.value)
        return tf.gather(tf.reshape(kernel, (-1,)), self.positions.value)

    def spread(self, values, rest=None):
        """Return a tensor of the weight's shape with these values where it is active.

        Args:
            values: [count].
            rest: What it has elsewhere, of the weight's shape; None for 0.
        """
        padded = tf.concat([values, tf.zeros((1,), values.dtype)], axis=0)
        dense = tf.gather(padded, self.places.value)
        dense = tf.reshape(dense, self.masked.shape)
        if rest is None:
            return dense
        rest = tf.cast(tf.convert_to_tensor(rest), values.dtype)
        return tf.where(self.masked.deployed_mask(), dense, rest)
