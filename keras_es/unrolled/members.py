"""A task's functions for all members at once, each with weights of its own."""

import contextlib

import keras
import tensorflow as tf

from keras_es import _compat
from keras_es.populations.mapping import map_members, members_can_be_vectorized
from keras_es.unrolled import traced


class Members:
    """Evaluates a `Task` over a leading axis of members.

    Args:
        task: The built task.
        variables: Its trainable weights, in the order of `weights` below.
    """

    def __init__(self, task, variables):
        self.task, self.variables = task, list(variables)
        self.output_spec, self.returns_done = None, False
        self._in_turn = False

    def initial_state(self, weights, seeds, data):
        """Return the states at t = 0.

        Args:
            weights: List of tensors [m, *shape], one for each variable.
            seeds: int32 [m, 2].
            data: None or a structure of tensors [m, rows, ...].
        """

        def one(elements):
            with self._weights(elements["weights"]):
                state = self.task.initial_state(elements["seed"], elements.get("data"))
            return self._as_state(state)

        return self._map(one, _given(weights=weights, seed=seeds, data=data))

    def step(self, weights, state, t, seeds, data):
        """Return (states, losses [m], done [m] or None, outputs or None).

        Args:
            weights: List of tensors [m, *shape].
            state: Structure of tensors [m, ...].
            t: int32 [m].
            seeds: int32 [m, 2].
            data: None or a structure of tensors [m, rows, ...].
        """

        def one(elements):
            with self._weights(elements["weights"]):
                new, loss, done, outputs = self.task.observe(
                    elements["state"],
                    elements["t"],
                    elements["seed"],
                    elements.get("data"),
                )
            return _given(state=new, loss=loss, done=done, outputs=outputs)

        given = _given(weights=weights, state=state, t=t, seed=seeds, data=data)
        found = self._map(one, given)
        return found["state"], found["loss"], found.get("done"), found.get("outputs")

    def _as_state(self, state):
        """Return a first state as tensors, or raise for what cannot be held."""
        name = f"`{type(self.task).__name__}.initial_state`"

        def tensor(leaf):
            if leaf is None:
                raise ValueError(
                    f"{name} must return a structure of tensors: () for a state of "
                    "none. Received: None"
                )
            problem = (
                f"{name} must return dense tensors of numbers or booleans, whose "
                "shapes are known before it runs. Received: "
            )
            try:
                value = tf.convert_to_tensor(leaf)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{problem}{type(leaf).__name__}") from error
            kind = value.dtype
            numbers = kind.is_floating or kind.is_integer or kind.is_complex
            if not (numbers or kind.is_bool) or not value.shape.is_fully_defined():
                raise ValueError(f"{problem}shape {value.shape} of {kind.name}")
            return value

        return tf.nest.map_structure(tensor, state)

    def horizons(self, seeds):
        """Return the number of steps of each episode, int32 [n].

        Args:
            seeds: int32 [n, 2], of the episodes' beginnings.
        """
        if not self.task.has_own_horizons:
            return tf.fill([seeds.shape[0]], self.task.horizon)
        found = self._map(self._horizon, seeds)
        return tf.clip_by_value(found, 1, self.task.horizon)

    def _horizon(self, seed):
        found = tf.convert_to_tensor(_none_as_text(self.task.episode_horizon(seed)))
        if found.shape.rank != 0 or not found.dtype.is_integer:
            raise ValueError(
                f"`{type(self.task).__name__}.episode_horizon` must return an integer "
                f"scalar. Received: shape {found.shape} of {found.dtype.name}"
            )
        return tf.cast(found, tf.int32)

    def probe(self, data_spec):
        """Trace the task on the side, which tells of its mistakes; nothing runs.

        Sets `output_spec` and `returns_done`.

        Args:
            data_spec: None or the structure of specs [rows, ...] of a step's data.

        Returns:
            Structure of `tf.TensorSpec` of one particle's state.
        """

        def first_step(weights, seeds, data):
            state = self.initial_state(weights, seeds, data)
            found = self.step(weights, state, seeds[:, 0], seeds, data)
            return state, found[1:], self.horizons(seeds), found[0]

        # As the task is written: vectorizing a branch makes shapes of values by itself.
        self._in_turn = True
        specs = tf.function(first_step, autograph=False).get_concrete_function(
            [_two(v.shape, v.dtype) for v in self.variables],
            _two((2,), tf.int32),
            None if data_spec is None else tf.nest.map_structure(_two_like, data_spec),
        )
        types = traced.operations(specs)
        traced.check_stateless(self.task, types)
        self._in_turn = traced.has_shapes_of_values(types)
        state, (_, done, self.output_spec), *_ = specs.structured_outputs
        self.returns_done = done is not None
        return tf.nest.map_structure(
            lambda s: tf.TensorSpec(s.shape[1:], s.dtype), state
        )

    @property
    def may_end_early(self):
        """Whether episodes end at steps that windows do not know in advance."""
        return self.returns_done or self.task.has_own_horizons

    def _map(self, function, elements):
        """Call the task for each particle."""
        return map_particles(function, elements, self._in_turn)

    def _weights(self, values):
        """Let the task's weights read as a member's."""
        return reading(self.task, list(zip(self.variables, values)))


@contextlib.contextmanager
def reading(task, mapping, moving=()):
    """Let variables read as given values while a task is called.

    Args:
        task: The task.
        mapping: List of (variable, value).
        moving: The variables that it may assign to.

    Yields:
        The `keras.StatelessScope`.

    Raises:
        ValueError: If it assigned to others, or added losses: both would be lost.
    """
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
        before, moving = dict(scope.state_mapping), {id(v) for v in moving}
        yield scope
    changed = [
        k
        for k, value in scope.state_mapping.items()
        if before.get(k) is not value and k not in moving
    ]
    if changed:
        raise ValueError(
            f"`{type(task).__name__}` must not assign to variables, of which each "
            "particle would need its own: keep what changes in the state. Call layers "
            "with `training=False`, for BatchNormalization assigns its statistics and "
            "Dropout the state of its random numbers; draw those by `unrolled.normal` "
            f"and `uniform` from the seed. Received: {len(changed)} assigned"
        )
    if scope.losses:
        raise ValueError(
            f"Of `{type(task).__name__}` only the loss that a step returns is "
            "minimized: regularizers of activities and `add_loss` are not seen. Leave "
            "them out, and add the term to the loss. Received: "
            f"{len(scope.losses)} losses besides"
        )


def map_particles(function, elements, in_turn=False):
    """Map over the first axis; what XLA cannot do at once is done one by one.

    Such as `tf.cond` on a particle's state, or a loop that ends at a step of its own.
    Without XLA TensorFlow has rules for these, which are faster.

    Args:
        function: Of one element.
        elements: Structure of tensors with a first axis of particles.
        in_turn: Whether shapes are known to hang on values, which nothing vectorizes.
    """
    if in_turn:
        return map_members(function, elements, vectorize=False)
    at_once = not _compat.in_xla() or members_can_be_vectorized(function, elements)
    return map_members(function, elements, at_once)


def _given(**elements):
    """Leave out what is None or empty: not all structures can be mapped over."""
    return {k: v for k, v in elements.items() if v is not None}


def _none_as_text(value):
    """Return what can be made a tensor to tell its dtype."""
    return "none" if value is None else value


def _two_like(spec):
    return _two(spec.shape, spec.dtype)


def _two(shape, dtype):
    """Return the spec of two members: of one, `tf.vectorized_map` makes a broadcast."""
    return tf.TensorSpec((2, *shape), dtype)
