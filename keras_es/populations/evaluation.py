"""What a population of members said of a batch."""

import dataclasses

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.distribution import collectives


@dataclasses.dataclass
class Evaluation:
    """What a population said.

    Attributes:
        fitness: [n] fitness of the members (lower is better).
        valid: [n] booleans, whether loss, fitness and gradients are finite.
        gradients: Mean gradient over valid members, for each trainable variable.
        guidance: Mean of `MaskOptimizer.unit_guidance` for each masked weight, or None;
            in pure evolution what noise on outputs found.
        active: Union of the valid members' masks for each masked weight, boolean of
            the kernel's shape.
        state: New values of the population's `touched` variables: moving statistics
            and seeds.
        metrics: New values of the metrics' variables, which hold the part of each
            replica.
    """

    fitness: object
    valid: object
    gradients: list
    guidance: list | None
    active: list
    state: list
    metrics: list

    def over_replicas(self):
        """Return what all replicas found together; each keeps its gradients."""
        if collectives.replica_count() == 1:
            return self
        members = tf.stack([self.fitness, tf.cast(self.valid, tf.float32)], axis=1)
        members = collectives.gather_replicas(members)
        means = iter(
            collectives.mean_over_replicas(v for v in self.state if v.dtype.is_floating)
        )
        return dataclasses.replace(
            self,
            fitness=members[:, 0],
            valid=members[:, 1] > 0.0,
            active=collectives.any_over_replicas(self.active),
            state=[next(means) if v.dtype.is_floating else v for v in self.state],
        )


def total_loss(model, x, y, y_pred, sample_weight):
    """Return the training loss of a batch, a scalar.

    Raises:
        ValueError: If it is one number for each example.
    """
    loss = _compat.compute_loss(model, x, y, y_pred, sample_weight)
    if loss.shape.rank != 0:
        raise ValueError(
            "Members are compared by one number: the loss of a batch must be a scalar. "
            'Leave `reduction` of the loss at its default, "sum_over_batch_size". '
            f"Received: a loss of shape={tuple(loss.shape)}"
        )
    return loss


def weighted_fitness(function, y, y_pred, sample_weight):
    """Return what a fitness function says, times weights of examples or their parts.

    Raises:
        ValueError: If weights are by output, or of more parts than the fitness has.
    """
    values = tf.cast(tf.convert_to_tensor(function(y, y_pred)), tf.float32)
    if sample_weight is None or values.shape.rank == 0:
        return values
    if keras.tree.is_nested(sample_weight):
        raise ValueError(
            "A fitness has one value for each example, of all outputs together, and "
            "cannot be weighted by output. Give `sample_weight` as one array, or weigh "
            "outputs in the fitness. Received: sample_weight of structure "
            f"{keras.tree.map_structure(lambda w: tuple(w.shape), sample_weight)}"
        )
    weights = tf.cast(tf.convert_to_tensor(sample_weight), tf.float32)
    if values.shape.rank is None or weights.shape.rank == 1:
        return each_times(values, weights)
    return values * _of_parts(weights, values)


def _of_parts(weights, values):
    """Return weights of time steps, say, with as many axes as what they weigh."""
    while weights.shape.rank > values.shape.rank and weights.shape[-1] == 1:
        weights = tf.squeeze(weights, -1)
    if weights.shape.rank > values.shape.rank:
        raise ValueError(
            "`fitness` must return a value for each weight: `sample_weight` has shape "
            f"{tuple(weights.shape)}. Let it return values of that shape, or give one "
            f"weight for each example. Received: shape={tuple(values.shape)}"
        )
    return weights[(..., *[None] * (values.shape.rank - weights.shape.rank))]


def each_times(values, factors):
    """Multiply each example's value or values by the factor of the example."""
    axes = tf.ones_like(tf.shape(values)[1:])
    return values * tf.reshape(factors, tf.concat([tf.shape(factors)[:1], axes], 0))


def mean_fitness(function, y, y_pred, sample_weight):
    """Return the weighted mean of a per-example fitness."""
    # Keras divides a weighted loss by the number of examples, not by the weights.
    return tf.reduce_mean(weighted_fitness(function, y, y_pred, sample_weight))
