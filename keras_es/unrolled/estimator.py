"""`Estimator`: what all online evolution strategies share; they differ in a rule."""

import math

import keras

from keras_es import _arguments as kinds
from keras_es import _compat
from keras_es.optimizers.arguments import keras_optimizer


class Estimator(keras.optimizers.Optimizer):
    """Estimates gradients of unrolled losses from pairs, for any Keras optimizer.

    A particle holds two states s+, s- that are unrolled under weights θ + ε and θ - ε,
    ε normal with standard deviation σ. A window is W steps of all N particles, after
    which the weights move once, by

        g = 1/N Σ_particles 1/W Σ_{t in window} (L+_t - L-_t) / (2 σ²) ξ_t.

    What ε and ξ are is the rule of a subclass, given by two properties: ε is drawn
    anew every `period` steps of the episode, and ξ is ε, or the sum of all ε of the
    episode where the estimator `accumulates`.

    ε is a function of (seed, particle, episode, period's index) and never stored; both
    members of a pair share data and random numbers. An episode that ends within a
    window leaves the rest of it masked (loss 0 on both sides), and a new one begins in
    the next window. A particle of which a loss is not finite, or so large that the sum
    would not be, adds nothing to the sum of its window (N stays), is counted
    (`non_finite`), and begins a new episode.

    Args:
        inner_optimizer: Keras optimizer, or its name, that takes the step along g,
            without loss scaling.
        particles: N, number of pairs, at least 1.
        unroll_length: W, steps of a window, at least 1; it divides the horizon.
        sigma: σ > 0, standard deviation of the noise on each weight.
        clip: None, or the largest size of a loss difference L+_t - L-_t, above 0. A
            bound for the influence of single steps where losses explode; it biases
            the estimate.
        locked: By default particles stand at times spread over the episode, uniform
            in {0, W, ..., T - W}, so that each window has some of all. True lets all
            begin at 0 together, for data whose sequences begin with the episodes;
            windows then differ in what they estimate.
        burn_in: Whether particles reach their first times by an unroll under the
            first weights before training begins. False: they begin at step 0, in
            episodes that are as many steps shorter. None: True unless `fit`
            has data or `locked`.
        seed: Integer seed of noise, starts and tasks.
        name: Name of the optimizer.
    """

    accumulates = False
    """Whether ξ is the sum of all noise of the episode."""

    follows_mean = False
    """Whether pairs begin each window at the state of an unperturbed copy."""

    def __init__(
        self,
        inner_optimizer,
        *,
        particles,
        unroll_length,
        sigma,
        clip=None,
        locked=False,
        burn_in=None,
        seed=0,
        name=None,
    ):
        inner = _inner_optimizer(inner_optimizer)
        name = kinds.optional(kinds.text)("name", name)
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner
        self.particles = whole("particles", particles)
        self.unroll_length = whole("unroll_length", unroll_length)
        self.sigma = _positive("sigma", sigma)
        self.clip = kinds.optional(_positive)("clip", clip)
        self.locked = kinds.boolean("locked", locked)
        self.burn_in = kinds.optional(kinds.boolean)("burn_in", burn_in)
        if self.burn_in and self.locked:
            raise ValueError(
                "Particles that are `locked` begin at step 0 and have no burn-in. "
                "Leave `burn_in` out. "
                f"Received: locked={locked!r}, burn_in={burn_in!r}"
            )
        self.seed = kinds.seed("seed", seed)

    def window_length(self, horizon):
        """Return W for episodes of `horizon` steps."""
        return self.unroll_length

    def period(self, horizon):
        """Return after how many steps of an episode ε is drawn anew."""
        raise NotImplementedError

    @property
    def copies(self):
        """Number of states of a particle: a pair, and where it is the mean's."""
        return 3 if self.follows_mean else 2

    def segment(self, horizon):
        """Return the steps of a window in which the noise of no particle changes.

        Particles stand at multiples of W when a window begins, and noise changes at
        multiples of the period.
        """
        return math.gcd(self.period(horizon), self.window_length(horizon))

    def check_task(self, task):
        """Raise a ValueError if windows do not divide the task's horizon."""
        length = self.window_length(task.horizon)
        if task.horizon % length:
            near = [w for w in range(1, task.horizon + 1) if task.horizon % w == 0]
            near = sorted(sorted(near, key=lambda w: abs(w - length))[:3])
            raise ValueError(
                "`unroll_length` must divide the task's horizon, here for example "
                f"{', '.join(map(str, near))}. Received: unroll_length={length}, "
                f"horizon={task.horizon}"
            )

    # What Keras asks an optimizer for is the inner optimizer's.

    @property
    def variables(self):
        """Variables of the inner optimizer; the particles are the model's."""
        return self._variables + self.inner_optimizer.variables

    @property
    def learning_rate(self):
        """Learning rate of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.inner_optimizer.learning_rate = value

    @property
    def iterations(self):
        """Steps of the inner optimizer."""
        return self.inner_optimizer.iterations

    def build(self, variables):
        """Make the inner optimizer's slots."""
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        self.built = True

    def apply(self, grads, trainable_variables=None):
        """Let the inner optimizer move the weights."""
        self.inner_optimizer.apply(grads, trainable_variables)

    def finalize_variable_values(self, var_list):
        """Let the inner optimizer overwrite weights by their moving average (EMA)."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        """Return the arguments of the constructor."""
        return {
            "inner_optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "particles": self.particles,
            "unroll_length": self.unroll_length,
            "sigma": self.sigma,
            "clip": self.clip,
            "locked": self.locked,
            "burn_in": self.burn_in,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make the estimator from `get_config()`."""
        config = dict(config)
        config["inner_optimizer"] = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**config)


def _inner_optimizer(value):
    """Return the Keras optimizer that takes the step, or raise a ValueError."""
    optimizer = keras_optimizer("inner_optimizer", value)
    if isinstance(optimizer, Estimator) or hasattr(optimizer, "masked_weights"):
        raise ValueError(
            "`inner_optimizer` must be a plain Keras optimizer: it takes the step "
            "along the gradient that is estimated here. Received: "
            f"inner_optimizer={type(optimizer).__name__}"
        )
    innermost = _compat.innermost_optimizer(optimizer)
    if innermost is not optimizer or innermost.loss_scale_factor:
        raise ValueError(
            "`inner_optimizer` must not scale losses: estimates are float32 and not "
            "scaled, but would be divided. Leave the `LossScaleOptimizer` or "
            f"`loss_scale_factor` out. Received: {type(optimizer).__name__} with "
            f"loss_scale_factor={innermost.loss_scale_factor}"
        )
    return optimizer


def check_estimator(optimizer, task, replicas, jit_compile, run_eagerly):
    """Raise a ValueError if what `compile` is given does not fit together."""
    if not isinstance(optimizer, Estimator):
        raise ValueError(
            "`optimizer` must be an estimator of `keras_es.unrolled`, such as "
            'NRES("sgd", particles=100, unroll_length=10, sigma=0.1). Received: '
            f"optimizer={optimizer!r}"
        )
    optimizer.check_task(task)
    kinds.boolean("run_eagerly", run_eagerly)
    if isinstance(jit_compile, str):
        kinds.choice("auto")("jit_compile", jit_compile)
    elif not isinstance(jit_compile, bool):
        raise ValueError(
            '`jit_compile` must be True, False or "auto". '
            f"Received: jit_compile={jit_compile!r}"
        )
    if optimizer.particles % replicas:
        raise ValueError(
            "`particles` must be a multiple of the number of replicas. Received: "
            f"particles={optimizer.particles}, replicas={replicas}"
        )
    if task.on_host and jit_compile is True:
        raise ValueError(
            "XLA cannot compile a task of the host. Leave `jit_compile` out. "
            f"Received: jit_compile={jit_compile!r}"
        )


whole = kinds.integer(1)
_positive = kinds.number(lambda x: x > 0, "a finite number above 0")
