"""`Particles`: the variables that hold where particles stand, saved with the model."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_es import _compat
from keras_es.distribution.collectives import assign_all, replica_index

_FIRST = {"episode": -1, "finished": True}
"""What counters start from, where it is not 0."""


class Particles(keras.layers.Layer):
    """Holds the `Progress` of the particles, each replica that of its own.

    In a file the particles of all replicas stand in one row, so that a run may go on
    with another number of replicas. With several workers a file holds those of the
    worker that wrote it, and the others begin new episodes.
    """

    def __init__(self, **kwargs):
        super().__init__(trainable=False, **kwargs)
        self._held, self._pending, self._length = [], {}, 1
        self._spec: Any = None
        self._strategy: Any = None

    def discard(self):
        """Forget all particles."""
        _compat.discard_weights(self, self._held)
        self._held, self._pending, self._spec = [], {}, None

    def hold(self, spec, strategy, length):
        """Make the variables, or check that those there are hold the same.

        Args:
            spec: `Progress` of `tf.TensorSpec` of one replica.
            strategy: The model's `tf.distribute` strategy.
            length: W, of which particles stand at multiples.

        Raises:
            ValueError: If there are others already.
        """
        if self._spec is not None:
            self._check_same(spec)
            self._spec = spec
            return
        names = _names(spec)
        with strategy.scope(), _compat.add_weights_to_built_layer(self):
            self._held = [
                self.add_weight(
                    shape=s.shape,
                    dtype=s.dtype.name,
                    initializer=_first_value(name),
                    trainable=False,
                    name=name.replace("/", "_"),
                )
                for name, s in names.items()
            ]
            self._begun = self.add_weight(
                shape=(), dtype="bool", initializer=_first_value(""), trainable=False,
                name="begun",
            )  # fmt: skip
        self._held.append(self._begun)
        self._spec, self._strategy, self.built = spec, strategy, True
        self._length = length
        if self._pending:
            self._load(self._pending)
            self._pending = {}

    def read(self):
        """Return the `Progress` of this replica."""
        values = [tf.convert_to_tensor(v.value) for v in self._held[:-1]]
        return self._spec.packed(values)

    def write(self, progress):
        """Assign what `read` returns."""
        assign_all(zip(self._held, progress.flat()))

    @property
    def begun(self):
        """Whether the burn-in is over."""
        return bool(self._begun.numpy())

    def begin(self):
        """Note that the burn-in is over."""
        self._begun.assign(True)

    def _check_same(self, spec):
        before, after = _names(self._spec), _names(spec)
        if before != after:
            other = [n for n in after if before.get(n) != after[n]] or list(before)
            raise ValueError(
                "The particles' states have other shapes than in the last `fit`, as of "
                "other data. `compile` the model again to begin anew. Received: "
                f"{other[0]}={after.get(other[0])}, before {before.get(other[0])}"
            )

    @property
    def _total(self):
        """Number of particles of all replicas, those of other workers too."""
        return self._spec.time.shape[0] * self._strategy.num_replicas_in_sync

    @property
    def _copies(self):
        return self._spec.alive.shape[0]

    def save_own_variables(self, store):
        """Save the particles of all replicas of this process."""
        if self._spec is None:
            for name, value in self._pending.items():
                store[name] = value
            return
        local = self._strategy.experimental_local_results
        for name, variable in zip(_names(self._spec), self._held):
            parts = [np.asarray(value) for value in local(variable.value)]
            parts = [self._by_particle(name, part) for part in parts]
            store[name] = np.concatenate(parts, axis=_axis(name))
        store["begun"] = np.asarray(self.begun)
        store["particles"] = np.asarray(self._total)

    def load_own_variables(self, store):
        """Load what was saved; before the first `fit` it waits for that."""
        values = {name: np.asarray(store[name]) for name in store.keys()}
        if self._spec is None:
            self._pending = values
        elif values:
            self._load(values)

    def _load(self, values):
        names = _names(self._spec)
        replicas = self._strategy.num_replicas_in_sync
        values = dict(values)
        particles = int(values.pop("particles", self._total))  # Old files do not say.
        if particles != self._total:
            raise ValueError(
                "The file holds another number of particles than the estimator has. "
                f"Received: particles={particles} in the file, expected {self._total}"
            )
        if set(values) != {*names, "begun"}:
            raise ValueError(
                "The file holds particles of another task or estimator. "
                f"Received: {sorted(values)}, expected {sorted([*names, 'begun'])}"
            )
        if np.any(values["time"] % self._length):
            raise ValueError(
                "The file holds particles of another estimator, within what are "
                f"windows of this. Received: time={values['time'].tolist()}, "
                f"unroll_length={self._length}"
            )
        parts = []
        for name, spec in names.items():
            value, axis = values[name], _axis(name)
            shape = self._by_particle(name, np.empty(spec.shape, "bool")).shape
            rest = [n for i, n in enumerate(shape) if i != axis]
            if [n for i, n in enumerate(value.shape) if i != axis] != rest:
                raise ValueError(
                    "The file holds particles of another task or estimator. Received: "
                    f"{name} of shape {value.shape}, expected {shape} a replica"
                )
            missing = self._total - value.shape[axis]
            if missing > 0:  # Written by one of several workers.
                first = np.full(
                    [missing if i == axis else n for i, n in enumerate(shape)],
                    _FIRST.get(name, 0),
                )
                value = np.concatenate([value, first.astype(value.dtype)], axis=axis)
            value = np.take(value, range(self._total), axis=axis)
            split = np.split(value, replicas, axis=axis)
            parts.append(np.stack([p.reshape(spec.shape) for p in split]))
        parts = [tf.constant(p, s.dtype) for p, s in zip(parts, names.values())]

        def assign():
            index = replica_index()
            assign_all(zip(self._held, [p[index] for p in parts]))

        self._strategy.run(tf.function(assign, autograph=False))
        self._begun.assign(bool(values["begun"]))

    def _by_particle(self, name, value):
        """Bring the rows [copies * n, ...] of states to [copies, n, ...]."""
        if not name.startswith("state"):
            return value
        return value.reshape(self._copies, -1, *value.shape[1:])


def _axis(name):
    """Return the axis of the particles in a file."""
    return 0 if name in ("episode", "time", "finished") or "noise" in name else 1


def _names(spec):
    """Return the tensors of a `Progress` by name."""
    named = {}
    for field, value in vars(spec).items():
        flat = tf.nest.flatten(value)
        for i, leaf in enumerate(flat):
            single = field not in ("noise", "state")
            named[field if single else f"{field}_{i}"] = leaf
    return named


def _first_value(name):
    value = _FIRST.get(name, 0)
    return lambda shape, dtype: tf.fill(shape, tf.cast(value, dtype))
