"""`Task`: an unrolled computation with a state, a loss for each step and weights."""

from typing import Any

import keras
import tensorflow as tf

from keras_es._arguments import is_integer
from keras_es.unrolled.members import Members


class Task(keras.layers.Layer):
    """An unrolled computation whose weights are to be learned by its losses alone.

    For steps t = 0, 1, ..., T - 1 of an episode,

        s_{t+1}, L_t = step(s_t, t; weights),

    and what is minimized is the mean of L_t over the episode. Gradients of `step` are
    never asked for: it may branch, round, compare and explode. `step` and
    `initial_state` are written for one particle; all particles are vectorized
    (`tf.vectorized_map`), each with weights of its own.

    A subclass sets `horizon`, makes its weights in `build` and overrides
    `initial_state` and `step`. To be saved in a `.keras` file it is registered with
    Keras, and has `get_config` if its constructor takes arguments.

    Attributes:
        horizon: T, the number of steps of an episode, at least 1. A multiple of the
            estimator's `unroll_length`.

    Example:

    >>> class Decay(keras_es.unrolled.Task):
    ...     horizon = 20
    ...     def build(self):
    ...         self.rate = self.add_weight(shape=(), initializer="zeros", name="rate")
    ...     def initial_state(self, seed, data=None):
    ...         return 1.0 + 0.1 * keras_es.unrolled.normal((), seed)
    ...     def step(self, state, t, seed, data=None):
    ...         state = state * (1.0 - self.rate)
    ...         return state, state**2
    >>> model = keras_es.unrolled.UnrolledModel(Decay())
    >>> model.compile(
    ...     keras_es.unrolled.NRES("sgd", particles=8, unroll_length=5, sigma=0.1)
    ... )
    >>> history = model.fit(steps_per_epoch=10, epochs=2, verbose=0)
    >>> bool(model.task.rate > 0.0)
    True
    """

    horizon: int | None = None

    rows: int | None = None
    """How many rows of a batch a particle must have, if the task knows."""

    def build(self):
        """Make the weights, by `add_weight` or as layers."""

    def initial_state(self, seed, data=None):
        """Return the state at t = 0 of one particle.

        Args:
            seed: int32 tensor [2], another one for each particle and episode and the
                same for both members of a pair; for `keras_es.unrolled.normal` and
                `uniform`.
            data: What `step` gets in the first step of the window.

        Returns:
            Structure (nested lists, tuples, dicts) of tensors of static shapes.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override `initial_state(self, seed, data)`."
        )

    def step(self, state, t, seed, data=None):
        """Return the next state and the loss of one step of one particle.

        What changes is in the state: variables that a step assigns to (moving
        statistics, the counters of Dropout) and losses of `add_loss` would be lost,
        and are refused.

        Args:
            state: As `initial_state` returns it.
            t: int32 scalar, the step in the episode, from 0.
            seed: int32 tensor [2], another one for each particle, episode and step and
                the same for both members of a pair.
            data: None, or the particle's rows of this step: of a batch with leaves
                [particles * rows, unroll_length, ...], a structure of leaves
                [rows, ...].

        Returns:
            (state, loss), or (state, loss, done): a state of the same structure, shapes
            and dtypes, a float scalar, and a boolean scalar that ends the
            episode after this step.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must override `step(self, state, t, seed, data)`."
        )

    def episode_horizon(self, seed):
        """Return the number of steps of an episode, `horizon` unless overridden.

        Args:
            seed: int32 tensor [2], as for `initial_state`.

        Returns:
            Integer scalar from 1 to `horizon`; what is outside counts as the nearest
            of these. Windows do not have to divide it: what is left of an episode's
            last window is masked.
        """
        return self.horizon

    @property
    def has_own_horizons(self):
        """Whether episodes differ in length."""
        return type(self).episode_horizon is not Task.episode_horizon

    @property
    def on_host(self):
        """Whether steps are computed by the host, outside of TensorFlow."""
        return False

    def members(self, variables):
        """Return what evaluates the task for all members at once."""
        return Members(self, variables)

    def observe(self, state, t, seed, data=None):
        """Return (state, loss, done, outputs) of `step`, checked.

        Outputs are what metrics compare with the targets; None if there are none.
        """
        result = self.step(state, t, seed, data)
        new, loss, done = parse_step(self, result)
        return same_state(self, state, new), loss, done, None


def parse_step(task, result):
    """Return (state, loss, done) of what `step` returned; done may be None.

    Raises:
        ValueError: If it is not (state, loss) or (state, loss, done) with scalars.
    """
    name = type(task).__name__
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise ValueError(
            f"`{name}.step` must return (state, loss) or (state, loss, done). "
            f"Received: {_described(result)}"
        )
    state, loss, done = (*result, None)[:3]
    loss = tf.convert_to_tensor("none" if loss is None else loss)
    if loss.shape.rank != 0 or not loss.dtype.is_floating:
        raise ValueError(
            f"`{name}.step` must return the loss of one particle, a float scalar. "
            f"Take a mean or a sum. Received: loss of shape {loss.shape}, "
            f"dtype {loss.dtype.name}"
        )
    if done is not None:
        done = tf.convert_to_tensor(done)
        if done.shape.rank != 0 or done.dtype != tf.bool:
            raise ValueError(
                f"`{name}.step` must return `done` as a boolean scalar. Received: "
                f"done of shape {done.shape}, dtype {done.dtype.name}"
            )
    return state, tf.cast(loss, tf.float32), done


def same_state(task, before, after):
    """Return a step's state as tensors, which must be like the state before.

    Raises:
        ValueError: If structure, shapes or dtypes have changed.
    """
    name = type(task).__name__
    problem = (
        f"`{name}.step` must return a state of the structure, shapes and dtypes of "
        "`initial_state`. Received: "
    )
    try:
        tf.nest.assert_same_structure(before, after)
    except (ValueError, TypeError) as error:
        was, now = _described(before), _described(after)
        raise ValueError(f"{problem}{now} after {was}") from error

    def like(old, new):
        if not tf.is_tensor(new) and not isinstance(new, keras.Variable):
            new = tf.convert_to_tensor(new, old.dtype)
        new = tf.convert_to_tensor(new)
        if new.dtype != old.dtype or not new.shape.is_compatible_with(old.shape):
            raise ValueError(
                f"{problem}shape {new.shape} of {new.dtype.name} "
                f"after shape {old.shape} of {old.dtype.name}"
            )
        return tf.ensure_shape(new, old.shape)

    return tf.nest.map_structure(like, before, after)


def check_task(task):
    """Raise an error if a task cannot be unrolled.

    Raises:
        ValueError: If it is no task or has no horizon.
    """
    if not isinstance(task, Task):
        raise ValueError(
            "`task` must be a `keras_es.unrolled.Task`, an object and not a class. "
            f"Received: task={task!r}"
        )
    horizon: Any = task.horizon
    if not is_integer(horizon) or not 1 <= horizon < 2**31:
        raise ValueError(
            f"`{type(task).__name__}.horizon` must be an integer of at least 1, the "
            f"number of steps of an episode. Received: horizon={horizon!r}"
        )


def check_weights(task):
    """Raise an error if a built task has no weights that noise can be added to.

    Raises:
        ValueError: If there are none, others than floats, or regularized ones.
    """
    name = type(task).__name__
    if not task.trainable_variables:
        raise ValueError(
            f"`{name}` has no trainable weights. Make them in `build` by "
            "`self.add_weight(...)`. Received: none"
        )
    for v in task.trainable_variables:
        if not tf.as_dtype(v.dtype).is_floating:
            raise ValueError(
                f"The trainable weights of `{name}` must be floats, for noise is added "
                "to them. Make others with `trainable=False`. Received: "
                f"{v.path} of {v.dtype}"
            )
        if v.regularizer is not None:
            raise ValueError(
                "Only the loss that a step returns is minimized: regularizers of "
                "weights are not seen. Leave them out and add the term to the loss, or "
                "take the `weight_decay` of the inner optimizer. Received: "
                f"{v.path} with {type(v.regularizer).__name__}"
            )


def _described(value):
    if isinstance(value, (list, tuple, dict)):
        return f"{type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"
