"""`GymnasiumTask`: a policy in an environment of Gymnasium."""

import math
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_es._arguments import integer, optional, text
from keras_es.unrolled.host import HostTask


@keras.saving.register_keras_serializable(package="keras_es")
class GymnasiumTask(HostTask):
    """Trains a policy by the rewards of an environment: L_t is -reward.

    Each member has an environment of its own, and both members of a pair are reset with
    the same seed. The state of a particle is the last observation and that of the
    simulator, as `get_state` gives it. An environment goes on from where it is if that
    is the state wanted, and else (after loading, for the copies of
    `TruncatedES`) it is put there by `set_state`.

    Args:
        env_id: Name of an environment, such as "Swimmer-v5".
        policy: Built Keras model from observations [1, ...] to actions [1, ...]: for
            boxes of actions their values, clipped to the box; for n discrete actions
            n numbers, the largest of which is taken.
        horizon: Steps of an episode; None takes the environment's own limit.
        get_state: None, or a function from the (unwrapped) environment to a float64
            array that says all of its state. Known by itself for MuJoCo, and for those
            whose `state` is an array. To be saved in a `.keras` file both functions
            are registered with Keras.
        set_state: None, or a function of (environment, array) that brings it back.
        env_kwargs: None or a dict of arguments of `gymnasium.make`.
        **kwargs: `name` and others of `keras.layers.Layer`.

    Raises:
        ImportError: If Gymnasium is not installed (`pip install keras_es[rl]`).
        ValueError: If the environment has no limit, or wrappers of its own, its state
            is not known, or the policy is for another one.

    Example:

    ```python
    policy = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    task = keras_es.unrolled.GymnasiumTask("Swimmer-v5", policy)
    model = keras_es.unrolled.UnrolledModel(task)
    ```
    """

    def __init__(
        self,
        env_id,
        policy,
        *,
        horizon=None,
        get_state=None,
        set_state=None,
        env_kwargs=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.env_id, self.policy = text("env_id", env_id), policy
        horizon = optional(integer(1))("horizon", horizon)
        names = env_kwargs if isinstance(env_kwargs, dict) else {}
        if not isinstance(env_kwargs, dict | None) or not all(
            isinstance(name, str) for name in names
        ):
            raise ValueError(
                "`env_kwargs` must be None or a dict of arguments of `gymnasium.make`. "
                f"Received: env_kwargs={env_kwargs!r}"
            )
        self.env_kwargs = dict(env_kwargs or {})
        # `inputs` is what the Sequential and functional ones have, whose shapes we ask.
        if not isinstance(policy, keras.Model) or not getattr(policy, "inputs", None):
            raise ValueError(
                "`policy` must be a built Keras model, Sequential or functional. "
                f"Received: policy={type(policy).__name__}"
            )
        if (get_state is None) != (set_state is None):
            raise ValueError(
                "`get_state` and `set_state` go together. Received: one of them"
            )
        self.get_state, self.set_state = get_state, set_state
        self._given_functions = {}
        if get_state is not None:
            self._given_functions = {"get_state": get_state, "set_state": set_state}
        self._given_horizon = horizon
        made = self._make()
        _check_wrappers(made)
        # Unwrapped: the limit of time is ours, and checks take longer than the step.
        self._scratch = made.unwrapped
        _check_policy(policy, self._scratch)
        self.horizon = horizon or made.spec.max_episode_steps
        if self.horizon is None:
            raise ValueError(
                "The environment has no limit of its own: give `horizon`. Received: "
                f"env_id={env_id!r}, horizon=None"
            )
        if get_state is None:
            self.get_state, self.set_state = _state_functions(self._scratch)
        self._envs, self._known = [], []
        # Replicas call from threads of their own, and share the environments.
        self._one_caller = threading.Lock()

    def inputs(self, state, t, seed):
        observation = tf.cast(state["observation"], self.policy.inputs[0].dtype)
        return self.policy(observation[None], training=False)[0]

    def host_initial_state(self, seeds):
        rows = []
        with self._one_caller:
            for seed in seeds[:, 0]:
                # In an environment apart: those of the members are under way.
                observation, _ = self._scratch.reset(seed=int(seed))
                rows.append((observation, self.get_state(self._scratch), False))
        return _stacked(rows)

    def host_step(self, state, inputs, t, seeds):
        with self._one_caller:
            return self._moved(state, inputs, len(seeds))

    def _moved(self, state, inputs, count):
        while len(self._envs) < count:
            self._envs.append(self._make().unwrapped)
            self._envs[-1].reset(seed=0)
            self._known.append(None)
        actions = self._actions(inputs)
        rows, losses, done = [], np.zeros(count, "float32"), np.zeros(count, bool)
        for i, env in enumerate(self._envs[:count]):
            if state["over"][i]:  # The other of the pair goes on.
                rows.append((state["observation"][i], state["simulator"][i], True))
                continue
            wanted = state["simulator"][i]
            if self._known[i] is None or not np.array_equal(self._known[i], wanted):
                self.set_state(env, wanted)
            observation, reward, terminated, truncated, _ = env.step(actions[i])
            self._known[i] = self.get_state(env)
            # An environment may have a limit of its own besides the horizon.
            losses[i], done[i] = -reward, terminated or truncated
            rows.append((observation, self._known[i], done[i]))
        return _stacked(rows), losses, done

    def _actions(self, inputs):
        space = self._scratch.action_space
        if hasattr(space, "n"):
            return space.start + np.argmax(inputs, axis=-1).astype(int)
        actions = np.nan_to_num(inputs.reshape((len(inputs), *space.shape)))
        return np.clip(actions, space.low, space.high).astype(space.dtype)

    def _make(self):
        try:
            import gymnasium
        except ImportError as error:
            raise ImportError(
                "`GymnasiumTask` needs Gymnasium: pip install 'keras_es[rl]'. "
                f"Received: {error}"
            ) from error
        try:
            return gymnasium.make(self.env_id, **self.env_kwargs)
        except (gymnasium.error.Error, TypeError) as error:
            raise ValueError(
                f"Gymnasium cannot make the environment: {error} "
                f"Received: env_id={self.env_id!r}, env_kwargs={self.env_kwargs!r}"
            ) from error

    def get_config(self):
        config, serialize = super().get_config(), keras.saving.serialize_keras_object
        return {
            **config,
            "env_id": self.env_id,
            "policy": serialize(self.policy),
            "horizon": self._given_horizon,
            "env_kwargs": self.env_kwargs,
            **{name: serialize(value) for name, value in self._given_functions.items()},
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("policy", "get_state", "set_state"):
            if name in config:
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def _check_wrappers(env):
    """Raise a ValueError if an environment is registered with wrappers of its own."""
    wrappers = getattr(env.spec, "additional_wrappers", ())
    if wrappers:
        raise ValueError(
            "The environment must be one without `additional_wrappers`, for the state "
            "of a wrapper is not that of the simulator. Register a class that does "
            f"what they do. Received: env_id={env.spec.id!r} with "
            f"{', '.join(w.name for w in wrappers)}"
        )


def _check_policy(policy, env):
    """Raise a ValueError if a policy does not fit its environment."""
    import gymnasium

    seen, space = env.observation_space, env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        wanted = int(space.n)
    elif isinstance(space, gymnasium.spaces.Box):
        wanted = int(np.prod(space.shape))
    else:
        raise ValueError(
            "The environment's actions must be a `Box` or `Discrete`. "
            f"Received: env_id={env.spec.id!r} with actions {space}"
        )
    if seen.shape is None:
        raise ValueError(
            "The environment's observations must be arrays. "
            f"Received: env_id={env.spec.id!r} with observations {seen}"
        )
    taken = policy.input_shape if len(policy.inputs) == 1 else ()
    given = policy.output_shape if len(policy.outputs) == 1 else (None, None)
    fits = len(taken) == 1 + len(seen.shape)
    fits = fits and all(n in (None, m) for n, m in zip(taken[1:], seen.shape))
    if not fits or None in given[1:] or math.prod(given[1:]) != wanted:
        raise ValueError(
            f"`policy` must take observations {(None, *seen.shape)} and return "
            f"{wanted} numbers for each, as the environment has it. Received: a policy "
            f"from {policy.input_shape} to {policy.output_shape}"
        )


def _stacked(rows):
    observations, states, over = zip(*rows)
    return {
        "observation": np.asarray(observations, "float64"),
        "simulator": np.asarray(states, "float64"),
        "over": np.asarray(over, bool),
    }


def _state_functions(env):
    """Return (get_state, set_state) of an environment that we know.

    Raises:
        ValueError: If we do not.
    """
    if hasattr(env, "model") and hasattr(env, "data"):
        return _mujoco_functions(env)
    env.reset(seed=0)
    if isinstance(getattr(env, "state", None), (np.ndarray, tuple)):
        return _array_state, _set_array_state
    raise ValueError(
        "The state of this environment is not known. Give `get_state` and `set_state`. "
        f"Received: env_id={env.spec.id!r}"
    )


def _array_state(env):
    return np.asarray(env.state, "float64")


def _set_array_state(env, state):
    env.reset(seed=0)
    env.state = state.copy()


def _mujoco_functions(env):
    """Return functions of all that a step of MuJoCo depends on, to the bit."""
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    size = mujoco.mj_stateSize(env.model, kind)

    def get_state(env):
        state = np.empty(size)
        mujoco.mj_getState(env.model, env.data, state, kind)
        return state

    def set_state(env, state):
        mujoco.mj_setState(env.model, env.data, state, kind)
        # Positions of bodies follow; what the next step begins with does not move.
        mujoco.mj_forward(env.model, env.data)
        mujoco.mj_setState(env.model, env.data, state, kind)

    return get_state, set_state
