"""The compiled model that a configuration of a run describes."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from keras_es import optimizers, patterns
from keras_es.conversion.sparsify import sparsify
from keras_es.runs import tasks
from keras_es.runs.errors import RunError
from keras_es.training.model import xla_wins
from keras_es.training.models import ESModel

MASK_OPTIMIZERS = (*optimizers.OPTIMIZERS, "none")
"""What --mask_optimizer names."""


def build(config: Mapping[str, Any], data: Any, architecture: Any) -> keras.Model:
    """Return the compiled model of a configuration.

    Args:
        config: What `settings.resolve` returned.
        data: The data set.
        architecture: Has `build` and `dense_layers`, as `models.Architecture`.

    Raises:
        keras_es.runs.errors.RunError: If the blocks do not divide the weights.
    """
    kind = tasks.of(config["dataset"], config["model"])
    model = kind.build(architecture.build, data, config)
    steps = data.steps_per_epoch(config["batch_size"]) * config["epochs"]
    schedule = keras.optimizers.schedules.CosineDecay(config["learning_rate"], steps)
    optimizer = inner_optimizers()[config["optimizer"]](learning_rate=schedule)
    if config["mask_optimizer"] == "none":
        # Keras's own models cannot be trained by several workers.
        model = ESModel(_inputs(model), model.outputs[0], name=model.name)
    else:
        try:
            model = sparsify(
                model,
                config["sparsity"],
                pattern=pattern(config["block_shape"]),
                allocation=config["allocation"],
                exclude=architecture.dense_layers,
                seed=config["seed"],
            )
        except ValueError as error:
            raise RunError(str(error)) from error
        optimizer = mask_optimizer(config, optimizer, model, steps)
    jit_compile = config["jit_compile"]
    model.compile(
        optimizer=optimizer,
        jit_compile=xla_wins(model) if jit_compile == "auto" else jit_compile == "true",
        **kind.compile_arguments(architecture),
    )
    return model


def _inputs(model):
    """Return the inputs of a model in its own structure, such as a dict of them."""
    # A Sequential model, which has but one, does not tell it.
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def pattern(block_shape: str) -> Any:
    """Return the pattern that --block_shape names."""
    if not block_shape:
        return patterns.Unstructured()
    return patterns.Block(*map(int, block_shape.split("x")))


def mask_optimizer(
    config: Mapping[str, Any], inner: Any, model: keras.Model, steps: int
) -> Any:
    """Return the optimizer of weights and masks, with schedules for so many steps."""
    arguments = {"seed": config["seed"]}
    if config["population_size"] is not None:
        arguments["population_size"] = config["population_size"]
    cls = optimizers.get(config["mask_optimizer"])
    return optimizers.for_run(cls, inner, model, steps, **arguments)


def default_population(mask_optimizer: str) -> int | None:
    """Return the members that a method has by default, or None if it has none."""
    if mask_optimizer == "none":
        return None
    cls = optimizers.get(mask_optimizer)
    if not issubclass(cls, optimizers.EvolutionStrategy):
        return None
    # Not from an object: it would hold variables, before devices are configured.
    default = inspect.signature(cls).parameters["population_size"].default
    return cls.mask_search.default_population_size if default is None else default


def inner_optimizers() -> dict[str, type]:
    """Return the optimizers of Keras by name, in lower case as Keras knows them.

    Those that are around other optimizers, or made of several, are not among them.
    """
    base = keras.optimizers.Optimizer
    return {
        name.lower(): cls
        for name, cls in vars(keras.optimizers).items()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base
        if "learning_rate" in inspect.signature(cls).parameters
    }
