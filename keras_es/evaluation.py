"""What a population of members said of a batch."""

import dataclasses

import tensorflow as tf

from keras_es import distribution


@dataclasses.dataclass
class Evaluation:
    """What a population said.

    Attributes:
        fitness: [n] fitness of the members (lower is better).
        valid: [n] booleans, whether loss and fitness are finite.
        gradients: Mean gradient over valid members, for each trainable variable.
        guidance: Mean dL/dm of each unit, for each masked weight, or None.
        active: Dict from id of a latent kernel to the union of the valid members'
            masks, boolean of the kernel's shape.
        state: List of (variable, new value): moving statistics and seeds.
        metrics: List of (variable, new value) of the metrics, whose variables hold
            the part of each replica.
    """

    fitness: object
    valid: object
    gradients: list
    guidance: list | None
    active: dict
    state: list
    metrics: list

    def over_replicas(self):
        """Return what all replicas found together; each keeps its gradients."""
        if distribution.replica_count() == 1:
            return self
        members = tf.stack([self.fitness, tf.cast(self.valid, tf.float32)], axis=1)
        members = distribution.gather_replicas(members)
        active = distribution.any_over_replicas(self.active.values())
        values = [value for _, value in self.state]
        means = iter(
            distribution.mean_over_replicas(v for v in values if v.dtype.is_floating)
        )
        values = [next(means) if v.dtype.is_floating else v for v in values]
        return dataclasses.replace(
            self,
            fitness=members[:, 0],
            valid=members[:, 1] > 0.0,
            active=dict(zip(self.active, active)),
            state=[(variable, v) for (variable, _), v in zip(self.state, values)],
        )
