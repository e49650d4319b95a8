"""What trains a ticket: a fresh copy of a strategy or optimizer at each round."""

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_es.lottery.data import qualified
from keras_es.noise import Active, Full
from keras_es.optimizers.base import MaskOptimizer
from keras_es.optimizers.directional.base import DirectionalDerivative
from keras_es.optimizers.evolution.strategy import EvolutionStrategy
from keras_es.optimizers.gradient.static import Static

SEED_STEP = 1_000_003
"""From the seed of a round to that of the next."""


def checked(method):
    """Return a method that leaves masks as they are, from its name too.

    Args:
        method: Strategy of pure evolution, `Static`, a forward gradient, or any Keras
            optimizer or its name.

    Raises:
        ValueError: If it is none, or one that moves masks.
    """
    if isinstance(method, EvolutionStrategy):
        if method.inner_optimizer is None:
            _active(method.noise)
            return method
    elif isinstance(method, Static | DirectionalDerivative):
        return method
    elif not isinstance(method, MaskOptimizer):
        try:
            optimizer = keras.optimizers.get(method)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                "`strategy` must be a strategy of keras_es.optimizers with "
                "inner_optimizer=None, or a Keras optimizer or its name. "
                f"Received: strategy={method!r}"
            ) from error
        if isinstance(optimizer, keras.optimizers.Optimizer):
            is_ours = isinstance(optimizer, MaskOptimizer)
            return checked(optimizer) if is_ours else Static(optimizer)
    raise ValueError(
        "`strategy` must leave masks as they are: a strategy of keras_es.optimizers "
        "with inner_optimizer=None, such as SNES(None), or a Keras optimizer, whose "
        f"masks then rest. Received: strategy={method!r}"
    )


def config_of(method):
    """Return what tells a method from others, for JSON.

    Without names, which Keras counts up in a process for those that have none.
    """
    return _nameless(keras.saving.serialize_keras_object(checked(method)))


def described(loss):
    """Return what tells losses, as `compile` takes them, from others, for JSON."""
    if isinstance(loss, keras.losses.Loss):
        return _nameless(keras.saving.serialize_keras_object(loss))
    if isinstance(loss, dict):
        return {str(k): described(v) for k, v in loss.items()}
    if isinstance(loss, list | tuple):
        return [described(v) for v in loss]
    return qualified(loss) if callable(loss) else loss


def _nameless(config):
    if isinstance(config, dict):
        left_out = ("name", "shared_object_id")
        return {k: _nameless(v) for k, v in config.items() if k not in left_out}
    if isinstance(config, list | tuple):
        return [_nameless(v) for v in config]
    return config


def fresh(method, round_index, first_step=0):
    """Return a copy without state, whose seed is a function of (its seed, round).

    Args:
        method: What `checked` returned.
        round_index: Integer of at least 0.
        first_step: Step from which its schedules go on (rewinding).
    """
    config = method.get_config()
    config["seed"] = config["seed"] + SEED_STEP * round_index
    if isinstance(method, EvolutionStrategy):
        config["noise"] = keras.saving.serialize_keras_object(_active(method.noise))
    if first_step:
        config = _shifted(config, first_step)
    return type(method).from_config(config)


def _active(noise):
    """Return noise on active weights alone, or refuse what cannot be."""
    if noise is not None and noise.resting:
        return noise
    return Active(Full() if noise is None else noise)


@keras.saving.register_keras_serializable(package="keras_es")
class Later(LearningRateSchedule):
    """A schedule that goes on from a step: rate(step + first_step).

    The optimizer's own count begins at 0, for Adam corrects its moments by it.

    Args:
        schedule: `LearningRateSchedule`.
        first_step: Integer of at least 0.
    """

    def __init__(self, schedule, first_step):
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        self.schedule, self.first_step = schedule, first_step

    def __call__(self, step):
        return self.schedule(step + self.first_step)

    def get_config(self):
        """Return the arguments of the constructor."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "first_step": self.first_step}


def _shifted(config, step):
    """Return a config in which all schedules go on from a step."""
    if isinstance(config, list | tuple):
        return [_shifted(value, step) for value in config]
    if not isinstance(config, dict):
        return config
    if _is_schedule(config):
        schedule = Later(keras.saving.deserialize_keras_object(config), step)
        return keras.saving.serialize_keras_object(schedule)
    return {key: _shifted(value, step) for key, value in config.items()}


def _is_schedule(config):
    """Tell whether a config is that of a learning rate schedule."""
    name = config.get("class_name")
    if not isinstance(name, str):
        return False
    known = keras.saving.get_registered_object(config.get("registered_name") or name)
    known = known or getattr(keras.optimizers.schedules, name, None)
    return isinstance(known, type) and issubclass(known, LearningRateSchedule)
