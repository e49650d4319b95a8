"""The arguments that optimizers of masks share, and what became of older ones."""

from collections.abc import Mapping

import keras

from keras_es import _arguments as kinds
from keras_es import _compat
from keras_es.noise.options import Full, Layerwise, LowRank, Noise, Orthogonal, Outputs
from keras_es.ops import fitness as shaping
from keras_es.optimizers.options import Chunks, Falling, Sampled, Turns

_INNER_ONLY = (
    "weight_decay",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "loss_scale_factor",
    "gradient_accumulation_steps",
    "learning_rate",
)

_NOW = {
    "rank": "noise=keras_es.noise.LowRank({value})",
    "pairs_per_draw": "noise=keras_es.noise.Full(pairs_per_draw={value})",
    "orthogonal": "noise=keras_es.noise.Orthogonal()",
    "output_sigma": "noise=keras_es.noise.Outputs({value})",
    "layerwise": "noise=keras_es.noise.Layerwise()",
    "sampled_examples": "batch_mode=keras_es.optimizers.Sampled({value})",
    "members_per_step": "turns=keras_es.optimizers.Turns(members={value})",
    "steps_per_pair": "turns=keras_es.optimizers.Turns(steps={value})",
    "members_per_chunk": "turns=keras_es.optimizers.Chunks({value})",
    "sparsity_schedule": "density=keras_es.optimizers.Falling({value})",
    "magnitude_pull": "density=keras_es.optimizers.Falling(None, pull={value})",
}
"""How the arguments of older versions are spelled now."""


def refuse_unknown(cls, name, value):
    """Raise for an argument that an optimizer does not have, if more can be said.

    Args:
        cls: The optimizer's class.
        name: Name of the argument.
        value: What was given.

    Raises:
        ValueError: Always.
    """
    hint = f"See help(keras_es.optimizers.{cls.__name__})."
    if name in _INNER_ONLY:
        hint = (
            f"Set it on the inner optimizer: {cls.__name__}(keras.optimizers.Adam("
            f"{name}=...))."
        )
    elif name in _NOW and _NOW[name].split("=")[0] in kinds.arguments_of(cls):
        hint = f"It is spelled {_NOW[name].format(value=repr(value))} now."
    elif name in getattr(cls, "now_of", {}):
        method = f"keras_es.optimizers.{cls.now_of[name]}"
        hint = f"The method that has it is {method} now, with its other arguments."
    raise ValueError(
        f"{cls.__name__} has no argument `{name}`. {hint} Received: {name}={value!r}"
    )


def translated(cls, config):
    """Return a config with the arguments of older versions spelled as they are now.

    Args:
        cls: The optimizer's class.
        config: Dict, not changed.
    """
    takes = kinds.arguments_of(cls)
    old = {k: v for k, v in config.items() if k in _NOW and k not in takes}
    config = {k: v for k, v in config.items() if k not in old}
    noise = None
    if old.get("orthogonal"):
        noise = Orthogonal()
    elif old.get("rank"):
        noise = LowRank(old["rank"], old.get("pairs_per_draw", 1))
    elif old.get("pairs_per_draw", 1) > 1:
        noise = Full(old["pairs_per_draw"])
    if old.get("output_sigma") is not None:
        noise = Outputs(old["output_sigma"], noise or Full())
    if old.get("layerwise"):
        noise = Layerwise(noise or Full())
    members, steps = old.get("members_per_step"), old.get("steps_per_pair")
    schedule, pull = old.get("sparsity_schedule"), old.get("magnitude_pull")
    new = {"noise": noise}
    if old.get("sampled_examples"):
        new["batch_mode"] = Sampled(old["sampled_examples"])
    if members or steps:
        new["turns"] = Turns(members, steps)
    if old.get("members_per_chunk"):
        new["turns"] = Chunks(old["members_per_chunk"])
    if schedule is not None or pull is not None:
        new["density"] = Falling(schedule, pull)
    return config | {k: v for k, v in new.items() if v is not None}


# Kinds of arguments (see `keras_es._arguments`).


def keras_optimizer(name, value):
    """Return a Keras optimizer, from its name or config too."""
    wanted = 'a Keras optimizer, its name or its config, such as "adam"'
    try:
        get = _by_config if isinstance(value, dict) else keras.optimizers.get
        optimizer = get(value)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"`{name}` must be {wanted} ({error}). Received: {name}={value!r}"
        ) from error
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"`{name}` must be {wanted}. Received: {name}={value!r}")
    return optimizer


def _by_config(config):
    try:
        return keras.optimizers.get(dict(config))  # Keras changes what it reads.
    except ValueError:
        # It does not find all of its own classes so (`Lamb`), but by their modules.
        if "module" not in config:
            raise
        return keras.saving.deserialize_keras_object(dict(config))


def optimizer_of_weights(name, value):
    """Return what trains weights: a Keras optimizer or a `DirectionalDerivative`."""
    if hasattr(value, "derivative") or isinstance(value, dict):
        value = keras_optimizer(name, value)
        if hasattr(value, "derivative"):
            return _rule_of_weights(name, value)
    return plain_optimizer(name, value)


def _rule_of_weights(name, rule):
    """Return a `DirectionalDerivative` that is to train weights under other masks."""
    if rule.masked_out != "rest":
        raise ValueError(
            "What becomes of masked-out weights is said by the optimizer of the masks: "
            f"give it `masked_out`. Received: {name}={type(rule).__name__}("
            f"masked_out={rule.masked_out!r})"
        )
    return rule


def optimizer_along_directions(name, value):
    """Return the Keras optimizer that takes the steps of estimated gradients."""
    return plain_optimizer(
        name,
        value,
        "here: it averages gradients of several steps, and estimates along directions "
        "are averaged within one. Take as many times the `directions`, or a larger "
        "batch.",
    )


def plain_optimizer(
    name,
    value,
    no_accumulation="next to masks: where these move, gradients gathered under one "
    "mask would be applied under another. Use a larger batch instead.",
):
    """Return the Keras optimizer that trains weights; it must not move masks.

    Args:
        name: Name of the argument.
        value: What is given.
        no_accumulation: Why gradients of several steps cannot be gathered, and what to
            do instead.
    """
    if value is None:
        raise ValueError(
            f"`{name}` must be a Keras optimizer, its name or its config, "
            'such as "adam": it trains the weights. To evolve the weights too, take '
            "keras_es.optimizers.OpenES(None) or another strategy that can. "
            f"Received: {name}=None"
        )
    optimizer = keras_optimizer(name, value)
    if hasattr(optimizer, "masked_weights"):
        raise ValueError(
            f"`{name}` must be an optimizer of weights, not of masks. "
            f"Received: {name}={optimizer.name!r}"
        )
    if isinstance(_compat.innermost_optimizer(optimizer), _compat.MultiOptimizer):
        raise ValueError(
            "A MultiOptimizer keeps the state of weights in optimizers that it makes "
            "itself, where momentum cannot be kept from masked-out weights. Give one "
            f"optimizer for all weights. Received: {name}={optimizer.name!r}"
        )
    steps = _compat.innermost_optimizer(optimizer).gradient_accumulation_steps
    if steps:
        raise ValueError(
            f"`gradient_accumulation_steps` cannot be used {no_accumulation} "
            f"Received: gradient_accumulation_steps={steps}"
        )
    return optimizer


def no_optimizer(name, value):
    """Refuse an optimizer of weights for a strategy that evolves them."""
    value = optimizer_of_weights(name, value)
    raise ValueError(
        "The weights are evolved: `inner_optimizer` must be None. For weights by "
        "gradient and masks by evolution take SNES or OpenES. "
        f"Received: inner_optimizer={value.name!r}"
    )


def batch_mode(name, value):
    """Return "split", "full" or a `Sampled`."""
    if isinstance(value, str):
        return kinds.choice("split", "full")(name, value)
    return kinds.instance(Sampled, '"split", "full" or a Sampled')(name, value)


noise = kinds.instance(Noise, "an object of keras_es.noise, such as LowRank(1)")
turns = kinds.instance((Turns, Chunks), "a Turns or, to evolve weights, a Chunks")
density = kinds.instance(Falling, "a Falling")


def function(name, value):
    """Return the function of a fitness, from its name or config too."""
    wanted = (
        "None (the model's loss), the name of a Keras loss or a function "
        "(y, y_pred) -> per-example values"
    )
    found = value
    if isinstance(value, (dict, str)):
        try:
            # Keras loads a lambda as what it is, but not through `losses`.
            is_lambda = isinstance(value, dict) and (
                value.get("class_name") == "__lambda__"
            )
            get = keras.saving.deserialize_keras_object
            found = get(value) if is_lambda else keras.losses.get(value)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                f"`{name}` must be {wanted} ({error}). Received: {name}={value!r}"
            ) from error
    if not callable(found):
        raise ValueError(f"`{name}` must be {wanted}. Received: {value!r}")
    return found


def costs(name, value):
    """Return what active weights cost, a dict from rule to a number above 0."""
    wanted = (
        f"`{name}` must be a dict from the path of a layer or weight, or a regular "
        "expression, to a number above 0"
    )
    if not isinstance(value, Mapping):
        raise ValueError(f"{wanted}. Received: {name}={value!r}")
    for rule, cost in value.items():
        if not isinstance(rule, str) or not kinds.is_number(cost) or not cost > 0:
            raise ValueError(f"{wanted}. Received: {rule!r}: {cost!r}")
    return {rule: float(cost) for rule, cost in value.items()}


def serialize_function(fitness):
    """Return the name or config of a fitness."""
    return None if fitness is None else keras.losses.serialize(fitness)


def fitness_shaping(name, value):
    """Return a function of `keras_es.ops.fitness`, from its name or config too."""
    return shaping.get(value)


serialize_shaping = shaping.serialize


def value_at(value, generation):
    """Return a number as it is, a schedule at a generation as a float32 scalar."""
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return keras.ops.cast(value(generation), "float32")
    return value


# What is refused of an optimizer that is in use.


def refuse_other_model(optimizer, model):
    """Raise for a model that an optimizer was not built with."""
    own = {id(v) for v in optimizer._trainable_variables}
    others = model.trainable_variables
    if others and not any(id(v) in own for v in others):
        cls = type(optimizer).__name__
        raise ValueError(
            f"{cls} holds the state of another model: each model needs an optimizer "
            f"object of its own, such as {cls}.from_config(optimizer.get_config()). "
            f"Received: optimizer={optimizer.name!r} in model={model.name!r}"
        )


def refuse_apply(optimizer):
    """Raise: masks can only move in a step that evaluates members."""
    raise RuntimeError(
        f"{type(optimizer).__name__} moves masks within the train step of an "
        "`ESModel`; plain gradients are not enough. Make the model with "
        "`keras_es.sparsify(model, ...)`, or `keras_es.es_model(model)` without "
        "masks, or derive its class from `keras_es.ESMixin` before `keras.Model`. "
        "A copy of a sequential model by `keras.models.clone_model` is a plain model "
        "again, without the masks within composite layers: copy it by "
        "`type(model).from_config(model.get_config())`, or save and load it. "
        f"Received: optimizer={optimizer.name!r} used outside such a model"
    )
