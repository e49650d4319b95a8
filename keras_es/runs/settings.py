"""What the flags of train.py mean: checks, and defaults that fit the data set."""

import difflib
import inspect
import math
import os
import re

import keras

from keras_es import optimizers
from keras_es.datasets import images
from keras_es.distribution import strategies
from keras_es.runs.workdir import RunError


class DataError(RunError):
    """The flags are right, but the data set is not to be had."""

    exit_code = 1


def check(f, models):
    """Refuse what is wrong whatever the data set.

    Args:
        f: The `absl.flags.FlagValues` of train.py.
        models: Names of the models.

    Raises:
        RunError: If a value is not allowed.
    """
    known = {
        "model": models,
        "allocation": ["uniform", "erk"],
        "mask_optimizer": [*optimizers.OPTIMIZERS, "none"],
        "optimizer": [*inner_optimizers()],
        "jit_compile": ["auto", "true", "false"],
        "strategy": strategies.STRATEGIES,
    }
    for name, choices in known.items():
        if f[name].value is not None and f[name].value not in choices:
            near = difflib.get_close_matches(f[name].value, choices, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else str(choices)
            refuse(f, name, f"unknown {name.replace('_', ' ')}; {hint}")
    limits = {
        "sparsity": (lambda v: 0 <= v < 1, "expected a number in [0, 1)"),
        "learning_rate": (lambda v: 0 < v < math.inf, "expected a number above 0"),
        "batch_size": (lambda v: v >= 1, "expected at least 1"),
        "epochs": (lambda v: v >= 1, "expected at least 1"),
        "virtual_devices": (lambda v: v >= 1, "expected at least 1"),
        "seed": (lambda v: 0 <= v < 2**31, "expected an integer in [0, 2**31)"),
        "population_size": (
            lambda v: v >= 2 and v % 2 == 0,
            "expected an even number, for members come in pairs",
        ),
    }
    for name, (fits, message) in limits.items():
        if f[name].value is not None and not fits(f[name].value):
            refuse(f, name, message)
    if f.block_shape and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", f.block_shape):
        refuse(f, "block_shape", "expected ROWSxCOLUMNS, like 16x1")
    if f.mask_optimizer == "none" and f.sparsity:
        refuse(f, "sparsity", "--mask_optimizer=none has no masks and needs 0")
    if f.virtual_devices and f.strategy != "mirrored":
        refuse(f, "virtual_devices", "only --strategy=mirrored has several devices")
    if f["tpu"].present and f.strategy != "tpu":
        refuse(f, "tpu", "--strategy=tpu is missing")


def refuse(f, name, message):
    """Raise the error of a flag."""
    raise RunError(f"{message}; received --{name}={f[name].value}")


def inner_optimizers():
    """Return the optimizers of Keras by name, in lower case as Keras knows them."""
    base = keras.optimizers.Optimizer
    return {
        name.lower(): cls
        for name, cls in vars(keras.optimizers).items()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base
        if name != "LossScaleOptimizer"
    }


def load_data(f):
    """Load the data set.

    Raises:
        RunError: If there is none of that name, or it is not there.
    """
    try:
        return images.load(f.dataset, f.data_dir)
    except ValueError as error:
        raise RunError(str(error)) from error
    except (OSError, ImportError) as error:
        raise DataError(str(error)) from error


def resolve(f, data, replicas=1):
    """Return all that the result follows from, with defaults that fit the data set.

    Args:
        f: The flags.
        data: The data set.
        replicas: Number of replicas that share each batch.

    Raises:
        RunError: If replicas or the population cannot share a batch.
    """
    height, width, channels = data.input_shape
    if height * width <= 256:
        model, batch_size, epochs, rate = "mlp", 64, 60, 0.003
    elif channels == 1:
        model, batch_size, epochs, rate = "lenet", 128, 10, 0.003
    else:
        model, batch_size, epochs, rate = "cifar_convnet", 128, 30, 0.001
    defaults = {
        "model": model,
        "batch_size": batch_size,
        "epochs": epochs,
        "sparsity": 0.0 if f.mask_optimizer == "none" else 0.9,
        "learning_rate": 0.1 if f.optimizer == "sgd" else rate,
        "augment": data.name in ("cifar10", "cifar100"),
    }
    config = {
        name: defaults.get(name) if f[name].value is None else f[name].value
        for name in f
        if name not in ("data_dir", "workdir", "help", "tpu", "virtual_devices")
    }
    config["replicas"] = replicas
    config["population_size"] = population_size(f)
    if config["batch_size"] % replicas:
        raise RunError(
            f"a batch that the replicas cannot share: --batch_size="
            f"{config['batch_size']} is not a multiple of the {replicas} replicas of "
            f"--strategy={f.strategy}"
        )
    share = config["population_size"] or 1
    if config["batch_size"] // replicas % share:
        raise RunError(
            f"a batch that the population cannot share: --batch_size="
            f"{config['batch_size']}{f' over {replicas} replicas' * (replicas > 1)} "
            f"is not a multiple of --population_size={share}"
        )
    return config


def population_size(f):
    """Return the population, the default of the method or None if it has none."""
    if f.mask_optimizer == "none":
        return None
    cls = optimizers.get(f.mask_optimizer)
    parameter = inspect.signature(cls).parameters.get("population_size")
    return parameter and (f.population_size or parameter.default)


def workdir_name(f, config):
    """Return --workdir, or a name in runs/ that no run of other flags has."""
    if f.workdir:
        return f.workdir
    first = ("dataset", "model", "mask_optimizer", "sparsity", "seed")
    parts = [str(config[name]) for name in first[:-1]] + [f"s{config['seed']}"]
    parts += [
        f"{name}={config[name]}"
        for name in config
        if name in f and name not in first and f[name].present
        if config[name] != f[name].default
    ]
    if config["replicas"] > 1:
        parts.append(f"replicas={config['replicas']}")
    return os.path.join("runs", re.sub(r"[^\w.=,-]", "_", "-".join(parts)))
