"""Tasks of the host equal the same tasks in TensorFlow; environments go on exactly."""

import keras
import numpy as np
import pytest

from keras_es import unrolled
from tests.unrolled.common import Powers

COMMON = dict(particles=4, unroll_length=2, sigma=0.1, seed=5)


class HostPowers(unrolled.HostTask):
    horizon = 8

    def build(self):
        start = keras.initializers.Constant(0.5)
        self.weight = self.add_weight(shape=(), initializer=start)

    def host_initial_state(self, seeds):
        return {"sum": np.zeros(len(seeds), "float32")}

    def host_step(self, state, inputs, t, seeds):
        total = state["sum"] + inputs[0]
        return {"sum": total}, total**3


class InPlace(HostPowers):
    """Writes into the arrays that it is given, and again into those it returned."""

    def host_initial_state(self, seeds):
        self.kept = {}
        return super().host_initial_state(seeds)

    def host_step(self, state, inputs, t, seeds):
        state["sum"] += inputs[0]
        inputs[0] += 1.0
        t += 1
        kept = self.kept.setdefault(len(t), np.zeros(len(t) + 64, "float32"))
        # TensorFlow shares memory that begins at a multiple of 64 bytes.
        total = kept[-kept.ctypes.data // 4 % 16 :][: len(t)]
        total[:] = state["sum"]
        return {"sum": total}, total**3


def test_a_host_task_is_the_same_task():
    make = unrolled.TruncatedES
    found = []
    for task in (HostPowers(), Powers()):
        model = unrolled.UnrolledModel(task)
        model.compile(make(keras.optimizers.SGD(0.001), **COMMON), jit_compile=False)
        model.fit(steps_per_epoch=5, verbose=0)
        found.append(float(model.task.weight.numpy()))
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[0] < 0.5


def test_arrays_of_the_host_are_its_own():
    model = unrolled.UnrolledModel(InPlace())
    model.compile(unrolled.NRES("sgd", **COMMON))
    expected = np.mean((0.5 * np.arange(1, 9)) ** 3)
    np.testing.assert_allclose(model.evaluate(verbose=0)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "step, message",
    [
        (lambda s, n: s, r"must return \(state, loss\)"),
        (lambda s, n: (s, np.zeros(())), r"`loss` of shape \(8,\)"),
        (lambda s, n: (s, np.zeros(n), np.zeros(1, bool)), r"`done` of shape \(8,\)"),
        (lambda s, n: ({"sum": s["sum"][:1]}, np.zeros(n)), "shapes and dtypes of"),
        (lambda s, n: (s["sum"], np.zeros(n)), "structure, shapes and dtypes of"),
        (lambda s, n: ({"sum": s["sum"].astype(int)}, np.zeros(n)), "of int64"),
    ],
)
def test_hosts_that_return_something_else(step, message):
    class Odd(HostPowers):
        def host_step(self, state, inputs, t, seeds):
            return step(state, len(seeds))

    model = unrolled.UnrolledModel(Odd())
    model.compile(unrolled.NRES("sgd", **COMMON))
    with pytest.raises(Exception, match=message):
        model.fit(steps_per_epoch=1, verbose=0)


@pytest.mark.parametrize(
    "state, message",
    [
        (np.array(["a", "b"]), "arrays of numbers. Received: .* <U1"),
        ((), r"one array or more.*Received: \(\)"),
    ],
)
def test_states_that_cannot_be_kept_are_refused(state, message):
    class Odd(HostPowers):
        def host_initial_state(self, seeds):
            return state

    model = unrolled.UnrolledModel(Odd())
    model.compile(unrolled.NRES("sgd", **COMMON))
    with pytest.raises(ValueError, match=message):
        model.fit(steps_per_epoch=1, verbose=0)


def test_xla_and_data_are_refused():
    model = unrolled.UnrolledModel(HostPowers())
    with pytest.raises(ValueError, match="XLA cannot compile a task of the host"):
        model.compile(unrolled.NRES("sgd", **COMMON), jit_compile=True)


def environment(env_id, observations, outputs, **kwargs):
    pytest.importorskip("gymnasium")
    if "v5" in env_id:
        pytest.importorskip("mujoco")
    policy = keras.Sequential(
        [keras.Input((observations,)), keras.layers.Dense(outputs)]
    )
    for v in policy.trainable_variables:
        v.assign(np.zeros(v.shape))
    return unrolled.GymnasiumTask(env_id, policy, **kwargs)


@pytest.mark.parametrize(
    "env_id, sizes", [("Swimmer-v5", (8, 2)), ("CartPole-v1", (4, 2))]
)
def test_environments_go_on_to_the_bit_from_their_states(env_id, sizes):
    """Steps of one environment, and of others that are put where it was each time."""
    apart, along = (environment(env_id, *sizes, horizon=20) for _ in range(2))
    seeds = np.array([[3, 0], [4, 0]], "int32")
    state = other = along.host_initial_state(seeds)
    rng = np.random.default_rng(0)
    for _ in range(6):
        inputs = rng.normal(size=(2, sizes[1])).astype("float32")
        state, loss, _ = along.host_step(state, inputs, None, seeds)
        apart._known = [None, None]  # whatever they did before: `set_state`
        other, again, _ = apart.host_step(other, inputs, None, seeds)
        np.testing.assert_array_equal(loss, again)
        for name in state:
            np.testing.assert_array_equal(state[name], other[name])


def test_cart_pole_is_learned_and_resumed(tmp_path):
    task = environment("CartPole-v1", 4, 2, horizon=40)
    model = unrolled.UnrolledModel(task)
    model.compile(
        unrolled.NRES(
            keras.optimizers.SGD(1.0), particles=6, unroll_length=10, sigma=0.5
        )
    )
    history = model.fit(steps_per_epoch=4, epochs=2, verbose=0).history
    assert all(-40 <= loss < 0 for loss in history["episode_loss"])
    assert len(set(model.particles.read().time.numpy())) > 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(steps_per_epoch=3, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_policies_for_another_environment_are_refused():
    for sizes, found in (((5, 2), r"\(None, 5\)"), ((4, 3), r"to \(None, 3\)")):
        with pytest.raises(ValueError, match=rf"observations \(None, 4\).*{found}"):
            environment("CartPole-v1", *sizes)
    with pytest.raises(ValueError, match="observations must be arrays"):
        environment("Blackjack-v1", 3, 2, horizon=5)


def test_the_limit_is_the_one_the_environment_is_made_with():
    assert environment("CartPole-v1", 4, 2).horizon == 500
    limit = dict(max_episode_steps=40)
    assert environment("CartPole-v1", 4, 2, env_kwargs=limit).horizon == 40


@keras.saving.register_keras_serializable(package="tests")
def state_of(env):
    return np.asarray(env.state, "float64")


@keras.saving.register_keras_serializable(package="tests")
def put_state(env, state):
    env.reset(seed=0)
    env.state = state.copy()


def test_functions_of_the_state_are_saved():
    task = environment("CartPole-v1", 4, 2, get_state=state_of, set_state=put_state)
    again = type(task).from_config(task.get_config())
    assert (again.get_state, again.set_state) == (state_of, put_state)
    assert environment("CartPole-v1", 4, 2).get_config().keys() < set(task.get_config())


def test_environments_without_a_known_state_are_refused():
    gymnasium = pytest.importorskip("gymnasium")

    class Hidden(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, seed=None, options=None):
            return np.zeros(1, "float32"), {}

    registered("Hidden-v0", Hidden)
    with pytest.raises(ValueError, match="Give `get_state` and `set_state`"):
        environment("Hidden-v0", 1, 2)


def registered(name, cls, **kwargs):
    gymnasium = pytest.importorskip("gymnasium")
    if name not in gymnasium.registry:
        gymnasium.register(name, cls, max_episode_steps=5, **kwargs)


def test_a_limit_within_the_environment_and_wrappers_around_it():
    gymnasium = pytest.importorskip("gymnasium")

    class Short(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9.0, 9.0, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, seed=None, options=None):
            self.state = np.zeros(1)
            return self.state, {}

        def step(self, action):
            self.state = self.state + 1.0
            return self.state, 1.0, False, bool(self.state[0] >= 3.0), {}

    registered("Short-v0", Short)
    model = unrolled.UnrolledModel(environment("Short-v0", 1, 2))
    model.compile(unrolled.FullES("sgd", particles=1, sigma=0.1))
    assert model.evaluate(verbose=0) == [-1.0, -3.0, 0.0]
    wrapper = gymnasium.wrappers.ClipReward.wrapper_spec(min_reward=0.0)
    registered("Wrapped-v0", Short, additional_wrappers=(wrapper,))
    with pytest.raises(ValueError, match="without `additional_wrappers`.*Wrapped-v0"):
        environment("Wrapped-v0", 1, 2)
