"""The strategies that `train.py --strategy` names.

They are to be made before TensorFlow does anything else: virtual devices and workers
cannot be had once it has started.
"""

import math
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import tensorflow as tf

from keras_es.distribution import workers
from keras_es.distribution.collectives import is_chosen

STRATEGIES = ("none", "mirrored", "multi_worker", "tpu")

# Seconds in which all workers, or the TPU, have to answer.
TIMEOUT = 300.0
TIMEOUT_VARIABLE = "KERAS_ES_TIMEOUT"

MOST_VIRTUAL_DEVICES = 128
"""TensorFlow makes threads and queues for each of them."""

Value = TypeVar("Value")


class StrategyError(RuntimeError):
    """The devices of a strategy are not to be had; the message is one line."""

    exit_code = 1


class SettingError(StrategyError):
    """An environment variable is wrong."""

    exit_code = 2


def refuse_keras_distribution() -> None:
    """Refuse a distribution that was set by `keras.distribution`.

    On TensorFlow Keras would take it, and share out nothing.

    Raises:
        ValueError: If there is one.
    """
    distribution = keras.distribution.distribution()
    if distribution is not None:
        raise ValueError(
            "`keras.distribution` does nothing on TensorFlow. Call "
            "`keras.distribution.set_distribution(None)`, and build and compile the "
            "model within `tf.distribute.MirroredStrategy().scope()` (or that of "
            "another tf.distribute strategy). "
            f"Received: keras.distribution.{type(distribution).__name__}"
        )


def refuse_other_scope(model: keras.Model, optimizer: Any) -> None:
    """Refuse a model or optimizer made outside of the scope of the model's strategy.

    Its variables would be one device's own.

    Args:
        model: Model that is being compiled.
        optimizer: Its `MaskOptimizer`.

    Raises:
        ValueError: If one of them was.
    """
    strategy = model.distribute_strategy
    if not is_chosen(strategy):
        return
    inner = getattr(optimizer, "inner_optimizer", None)
    made = {"model": model, "optimizer": optimizer, "inner_optimizer": inner}
    for what, owner in made.items():
        for variable in getattr(owner, "variables", ()):
            if not strategy.extended.variable_created_in_scope(variable.value):
                raise ValueError(
                    "Make the model, its optimizers and call `compile` within "
                    "`strategy.scope()`, the same for all of them. Received: "
                    f"{what} {owner.name!r}, made outside of the scope of "
                    f"{type(strategy).__name__}"
                )


def make(
    name: str, *, virtual_devices: int | None = None, tpu: str | None = None
) -> tf.distribute.Strategy:
    """Return a strategy.

    Args:
        name: One of `STRATEGIES`.
        virtual_devices: For "mirrored": number of replicas on the CPU, to try it on a
            machine that has only one device; None takes the GPUs there are.
        tpu: For "tpu": name or address of the TPU, or "local" on its own machine.

    Raises:
        StrategyError: If the TPU does not answer within 300 seconds, or as many as
            the environment variable KERAS_ES_TIMEOUT says, or that says no number.
        WorkersError: If the workers do not come by then.
    """
    timeout = timeout_seconds()
    if virtual_devices is not None:
        split_cpu(virtual_devices)
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_mirrored_devices())
    if name == "multi_worker":
        return multi_worker(timeout)
    if name == "tpu":
        return tpu_strategy(tpu, timeout)
    return tf.distribute.get_strategy()


def timeout_seconds() -> float:
    """Return how long to wait for workers or a TPU.

    Raises:
        SettingError: If KERAS_ES_TIMEOUT is no number of seconds.
    """
    text = os.environ.get(TIMEOUT_VARIABLE) or str(TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < threading.TIMEOUT_MAX:
        raise SettingError(
            f"the environment variable {TIMEOUT_VARIABLE} must be a number of seconds "
            f"above 0. Received: {TIMEOUT_VARIABLE}={text!r}"
        )
    return seconds


def split_cpu(count: int) -> None:
    """Make TensorFlow see `count` CPU devices and no others."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_visible_devices([cpu])
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * count
    )


def _mirrored_devices():
    gpus = tf.config.list_logical_devices("GPU")
    return [d.name for d in gpus or tf.config.list_logical_devices("CPU")]


def multi_worker(timeout: float = TIMEOUT) -> tf.distribute.Strategy:
    """Join the workers that TF_CONFIG names; each runs the same program.

    Raises:
        WorkersError: If TF_CONFIG is missing or wrong, or if a
            worker does not come within `timeout` seconds.
    """
    addresses, index = workers.cluster()
    workers.wait_for_workers(addresses, index, timeout)
    return within(
        timeout,
        tf.distribute.MultiWorkerMirroredStrategy,
        f"the {len(addresses)} workers do not join",
    )


def tpu_strategy(name: str | None, timeout: float = TIMEOUT) -> tf.distribute.Strategy:
    """Connect to a TPU and initialise it, which erases its memory.

    Raises:
        StrategyError: If it does not answer within `timeout` seconds.
    """

    def connect():
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        for addresses in resolver.cluster_spec().as_dict().values():
            for address in addresses:
                _reach(address, timeout)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)

    return within(timeout, connect, f"no TPU answers to --tpu={name}")


def _reach(address, timeout):
    """Raise OSError if nobody listens: TensorFlow would wait without end."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=min(timeout, 10.0)).close()


def within(timeout: float, function: Callable[[], Value], what: str) -> Value:
    """Return what a function returns, unless it takes too long.

    No signal interrupts TensorFlow while it waits in native code, so it does that in a
    thread that is left behind.

    Args:
        timeout: Seconds.
        function: Function without arguments.
        what: What it means if it fails, for the message.

    Raises:
        StrategyError: If it raised, or did not return in time.
    """
    outcome: dict[str, Any] = {}

    def run():
        try:
            outcome["value"] = function()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout)
    if "value" in outcome:
        return outcome["value"]
    error = outcome.get("error", f"waited {timeout:g} seconds")
    reason = " ".join(str(error).split())[:200]
    raise StrategyError(f"{what}: {reason}") from outcome.get("error")
