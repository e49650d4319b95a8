"""`HostTask`: simulators that are not TensorFlow, as functions of NumPy arrays."""

import numpy as np
import tensorflow as tf

from keras_es.unrolled.members import Members
from keras_es.unrolled.task import Task


class HostTask(Task):
    """A task whose states are moved by the host, for all members in one call.

    A subclass overrides `host_initial_state` and `host_step`, functions from NumPy
    arrays to NumPy arrays with a leading axis of members (2 * particles of a replica;
    three for `TruncatedES`). What the simulator gets of the weights is what `inputs`
    returns for each member, in TensorFlow: the weights themselves, or the action of a
    policy.

    What is stored between two windows is the arrays of the state. They must say all
    that the simulator has to know to go on, for a run that was saved begins with them.
    The arrays that the functions get are copies, which they may change; what they
    return is copied. They may be called by several threads under a strategy of several
    replicas. XLA does not compile such a task.

    Example:

    >>> class Host(keras_es.unrolled.HostTask):
    ...     horizon = 10
    ...     def build(self):
    ...         self.speed = self.add_weight(shape=(), initializer="zeros")
    ...     def host_initial_state(self, seeds):
    ...         return np.zeros(len(seeds), "float32")
    ...     def host_step(self, state, inputs, t, seeds):
    ...         state = state + inputs[0]
    ...         return state, (state - t) ** 2
    >>> model = keras_es.unrolled.UnrolledModel(Host())
    >>> model.compile(
    ...     keras_es.unrolled.NRES("adam", particles=4, unroll_length=5, sigma=0.1)
    ... )
    >>> history = model.fit(steps_per_epoch=3, verbose=0)
    """

    def inputs(self, state, t, seed):
        """Return what the host gets of one member's weights, by TensorFlow.

        Args:
            state: Structure of tensors, of one member.
            t: int32 scalar.
            seed: int32 tensor [2].

        Returns:
            Structure of tensors; by default the list of the trainable weights.
        """
        return [tf.convert_to_tensor(v) for v in self.trainable_variables]

    def host_initial_state(self, seeds):
        """Return the states at t = 0.

        Args:
            seeds: int32 array [members, 2]; both members of a pair have the same.

        Returns:
            Structure of arrays [members, ...].
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override `host_initial_state(self, seeds)`."
        )

    def host_step(self, state, inputs, t, seeds):
        """Return the next states and the losses.

        Args:
            state: Structure of arrays [members, ...].
            inputs: Structure of arrays [members, ...], what `inputs` returned.
            t: int32 array [members].
            seeds: int32 array [members, 2].

        Returns:
            (state, loss) or (state, loss, done): as `state`, a float array [members], a
            boolean array [members].
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override `host_step(self, state, inputs, t, "
            "seeds)`."
        )

    @property
    def on_host(self):
        return True

    def members(self, variables):
        return HostMembers(self, variables)


class HostMembers(Members):
    """Evaluates a `HostTask`, by one call of the host for a step of all members."""

    def initial_state(self, weights, seeds, data):
        specs = tf.nest.flatten(self.state_spec)

        def call(seeds):
            state = self.task.host_initial_state(np.array(seeds))
            return self._checked("host_initial_state", state, len(seeds))

        flat = tf.numpy_function(call, [seeds], [s.dtype for s in specs])
        return self._packed(flat, specs, seeds.shape[0])

    def step(self, weights, state, t, seeds, data):
        def inputs_of(elements):
            with self._weights(elements["weights"]):
                return self.task.inputs(
                    elements["state"], elements["t"], elements["seed"]
                )

        given = {"weights": weights, "state": state, "t": t, "seed": seeds}
        inputs = self._map(inputs_of, given)
        specs = tf.nest.flatten(self.state_spec)

        def call(*arrays):
            # Copies: the arrays are TensorFlow's own memory, and some simulators
            # change in place what they are given.
            flat = [np.array(a) for a in arrays]
            state = tf.nest.pack_sequence_as(self.state_spec, flat[: len(specs)])
            mine = tf.nest.pack_sequence_as(inputs, flat[len(specs) : -2])
            result = self.task.host_step(state, mine, *flat[-2:])
            return self._parsed(result, len(flat[-1]))

        types = [*(s.dtype for s in specs), tf.float32, tf.bool]
        flat = [*tf.nest.flatten(state), *tf.nest.flatten(inputs), t, seeds]
        *flat, loss, done = tf.numpy_function(call, flat, types)
        m = seeds.shape[0]
        loss, done = tf.ensure_shape(loss, [m]), tf.ensure_shape(done, [m])
        return self._packed(flat, specs, m), loss, done, None

    def probe(self, data_spec):
        """Call the host once for two members, which tells of the states' shapes."""
        if data_spec is not None:
            raise ValueError(
                "A `HostTask` has no data of `fit`. Read it in `host_step`. "
                "Received: data"
            )
        seeds = np.zeros((2, 2), "int32")
        state = tf.nest.map_structure(np.asarray, self.task.host_initial_state(seeds))
        if not tf.nest.flatten(state):
            raise ValueError(
                f"`{type(self.task).__name__}.host_initial_state` must return one "
                f"array or more; zeros where there is no state. Received: {state!r}"
            )
        for leaf in tf.nest.flatten(state):
            if leaf.ndim < 1 or len(leaf) != 2:
                raise ValueError(
                    f"`{type(self.task).__name__}.host_initial_state` must return "
                    "arrays [members, ...]. Received: for 2 members an array of shape "
                    f"{leaf.shape}"
                )
            if leaf.dtype.kind not in "biufc":
                raise ValueError(
                    f"`{type(self.task).__name__}.host_initial_state` must return "
                    f"arrays of numbers. Received: an array of {leaf.dtype}"
                )
        self.state_spec = tf.nest.map_structure(
            lambda a: tf.TensorSpec(a.shape[1:], a.dtype), state
        )
        self.returns_done = True
        return self.state_spec

    def _parsed(self, result, members):
        name = type(self.task).__name__
        if not isinstance(result, tuple) or len(result) not in (2, 3):
            raise ValueError(
                f"`{name}.host_step` must return (state, loss) or (state, loss, done). "
                f"Received: {type(result).__name__}"
            )
        state, loss, done = (*result, np.zeros(members, bool))[:3]
        flat = self._checked("host_step", state, members)
        loss, done = np.array(loss, "float32"), np.array(done, bool)
        for what, value in (("loss", loss), ("done", done)):
            if value.shape != (members,):
                raise ValueError(
                    f"`{name}.host_step` must return `{what}` of shape ({members},), "
                    f"one for each member. Received: shape {value.shape}"
                )
        return [*flat, loss, done]

    def _packed(self, flat, specs, members):
        flat = [tf.ensure_shape(x, (members, *s.shape)) for x, s in zip(flat, specs)]
        return tf.nest.pack_sequence_as(self.state_spec, flat)

    def _checked(self, what, state, members):
        """Return a state's arrays; another structure, shape or kind is an error."""
        problem = (
            f"`{type(self.task).__name__}.{what}` must return a state of the "
            "structure, shapes and dtypes of `host_initial_state`. Received: "
        )
        try:
            tf.nest.assert_same_structure(self.state_spec, state)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{problem}{type(state).__name__}: {error}") from error
        # Copies, for the host may write the next state into the same arrays.
        flat = [np.array(leaf) for leaf in tf.nest.flatten(state)]
        for leaf, spec in zip(flat, tf.nest.flatten(self.state_spec)):
            wanted = (members, *spec.shape)
            if leaf.shape != wanted or leaf.dtype != spec.dtype.as_numpy_dtype:
                raise ValueError(
                    f"{problem}shape {leaf.shape} of {leaf.dtype}, expected {wanted} "
                    f"of {spec.dtype.name}"
                )
        return flat
