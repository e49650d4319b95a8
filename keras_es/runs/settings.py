"""What the flags of train.py mean: checks, and defaults that fit the data set."""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import flags

from keras_es import _files as files
from keras_es.conversion.allocation import ALLOCATIONS
from keras_es.datasets import audio
from keras_es.distribution import strategies
from keras_es.runs import options, tasks
from keras_es.runs.errors import RunError
from keras_es.runs.model import MASK_OPTIMIZERS, default_population, inner_optimizers
from keras_es.runs.task import Task

MOST_STEPS = 2**31
"""Steps are counted in 32 bits."""

LARGEST_FLOAT32 = 3.4e38

NOT_OF_THE_RESULT = ("data_dir", "workdir", "help", "tpu", "virtual_devices")
"""Flags that say where and how, not what."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """What the value of a flag has to be.

    Args:
        fits: Function of the value.
        expected: What is expected, for the message.
    """

    fits: Callable[[Any], bool]
    expected: str


COUNT = Limit(lambda v: 1 <= v < 2**31, "expected at least 1 and less than 2**31")

LIMITS = {
    "sparsity": Limit(lambda v: 0 <= v < 1, "expected a number in [0, 1)"),
    "learning_rate": Limit(
        lambda v: 0 < v < LARGEST_FLOAT32, "expected a finite number above 0"
    ),
    "batch_size": COUNT,
    "epochs": COUNT,
    "virtual_devices": Limit(
        lambda v: 1 <= v <= strategies.MOST_VIRTUAL_DEVICES,
        f"expected at least 1 and at most {strategies.MOST_VIRTUAL_DEVICES}",
    ),
    "seed": Limit(lambda v: 0 <= v < 2**31, "expected an integer in [0, 2**31)"),
    "population_size": Limit(
        lambda v: 2 <= v < 2**31 and v % 2 == 0,
        "expected an even number, for members come in pairs",
    ),
    "block_shape": Limit(
        lambda v: not v or bool(re.fullmatch(r"[1-9]\d{0,8}x[1-9]\d{0,8}", v)),
        "expected ROWSxCOLUMNS, like 16x1",
    ),
}


@dataclasses.dataclass(frozen=True)
class Use:
    """When a flag has an effect; where it has none, it is refused.

    Args:
        flag: Its name.
        used: Function of the flags.
        reason: Function of the flags to why it is not used.
    """

    flag: str
    used: Callable[[flags.FlagValues], bool]
    reason: Callable[[flags.FlagValues], str]


def task_of(f: flags.FlagValues) -> Task:
    """Return the task of the flags' data set and model."""
    return tasks.of(f.dataset, f["model"].value)


def _has_masks(f):
    return f.mask_optimizer != "none"


def _masked(f):
    return _has_masks(f) and f.sparsity != 0


def _why_not_masked(f):
    if _has_masks(f):
        return "at --sparsity=0 nothing is masked"
    return "--mask_optimizer=none has no masks"


def _why_no_data_dir(f):
    if f.dataset in task_of(f).without_data_dir:
        return "comes with scikit-learn and is in no folder"
    return "is a folder itself"


USES = (
    Use(
        "sparsity",
        lambda f: _has_masks(f) or f.sparsity == 0,
        lambda f: "--mask_optimizer=none has no masks and needs 0",
    ),
    Use("block_shape", _masked, _why_not_masked),
    Use("allocation", _masked, _why_not_masked),
    Use(
        "population_size",
        lambda f: default_population(f.mask_optimizer) is not None,
        lambda f: f"--mask_optimizer={f.mask_optimizer} has no population",
    ),
    Use(
        "data_dir",
        lambda f: task_of(f).uses_data_dir(f.dataset),
        lambda f: f"--dataset={f.dataset} {_why_no_data_dir(f)}",
    ),
    Use(
        "virtual_devices",
        lambda f: f.strategy == "mirrored",
        lambda f: "only --strategy=mirrored has several devices",
    ),
    Use("tpu", lambda f: f.strategy == "tpu", lambda f: "--strategy=tpu is missing"),
    Use(
        "jit_compile",
        lambda f: f.strategy != "tpu" or f.jit_compile != "false",
        lambda f: "a TPU runs nothing but what XLA has compiled",
    ),
)
"""Every flag that is not for all methods, data sets and strategies."""


def check(f: flags.FlagValues, models: Sequence[str]) -> None:
    """Refuse what is wrong whatever the data set.

    Args:
        f: The `absl.flags.FlagValues` of train.py.
        models: Names of the models.

    Raises:
        RunError: If a value is not allowed, or a flag would be ignored.
    """
    known: dict[str, Sequence[str]] = {
        "model": models,
        "allocation": [*ALLOCATIONS],
        "mask_optimizer": MASK_OPTIMIZERS,
        "optimizer": [*inner_optimizers()],
        "jit_compile": ["auto", "true", "false"],
        "strategy": strategies.STRATEGIES,
    }
    for name, choices in known.items():
        value: str | None = f[name].value
        if value is not None and value not in choices:
            near = difflib.get_close_matches(value, choices, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else str(choices)
            refuse(f, name, f"unknown {name.replace('_', ' ')}; {hint}")
    kind = task_of(f)
    if f.model is not None and not tasks.takes(kind, f.model):
        if f.model in tasks.SPEECH:
            refuse(
                f, "dataset",
                f"--model={f.model} needs a folder with wav, flac or mp3 files in it, "
                f"or {' or '.join(audio.NAMES)}",
            )  # fmt: skip
        fitting = [name for name in models if tasks.takes(kind, name)]
        refuse(f, "model", f"--dataset={f.dataset} is for one of {fitting}")
    given_options(f)
    for name, limit in LIMITS.items():
        if f[name].value is not None and not limit.fits(f[name].value):
            refuse(f, name, limit.expected)
    for use in USES:
        given = f[use.flag].present and f[use.flag].value not in (None, "")
        if given and not use.used(f):
            refuse(f, use.flag, use.reason(f))
    if f.sparsity == 0 and _has_masks(f):
        expected = "it leaves no mask to move; a dense model is --mask_optimizer=none"
        refuse(f, "sparsity", expected)


def given_options(f: flags.FlagValues) -> dict[str, Any]:
    """Return what --options says, by name.

    Args:
        f: The flags.

    Raises:
        RunError: If that is not what this data set and model take.
    """
    try:
        return options.parse(f.options, task_of(f).options)
    except ValueError as error:
        return refuse(f, "options", str(error))


def refuse(f: flags.FlagValues, name: str, message: str) -> NoReturn:
    """Raise the error of a flag."""
    raise RunError(f"{message}; received --{name}={f[name].value}")


def resolve(f: flags.FlagValues, data: Any, replicas: int = 1) -> dict[str, Any]:
    """Return all that the result follows from, with defaults that fit the data set.

    Args:
        f: The flags.
        data: The data set.
        replicas: Number of replicas that share each batch.

    Raises:
        RunError: If there are more steps or examples in them than can be, or if
            replicas or the population cannot share a batch.
    """
    kind = task_of(f)
    defaults = kind.defaults(data)
    defaults["sparsity"] = 0.9 if _has_masks(f) else 0.0
    if f.optimizer == "sgd":
        defaults["learning_rate"] = 0.1
    config = {
        name: defaults.get(name) if f[name].value is None else f[name].value
        for name in f
        if name not in (*NOT_OF_THE_RESULT, "options")
    }
    given = given_options(f)
    config |= {name: given.get(name, defaults[name]) for name in kind.options}
    config["replicas"] = replicas
    if config["population_size"] is None:
        config["population_size"] = default_population(f.mask_optimizer)
    _check_batches(config, data, replicas)
    return config


def _check_batches(config, data, replicas):
    batch_size, share = config["batch_size"], config["population_size"] or 1
    if batch_size > data.train_size:
        raise RunError(
            f"{data.name} has {data.train_size:,} training examples and no more in a "
            f"batch; received --batch_size={batch_size}"
        )
    if data.steps_per_epoch(batch_size) * config["epochs"] >= MOST_STEPS:
        raise RunError(
            "a run has less than 2**31 steps, "
            f"{(MOST_STEPS - 1) // data.steps_per_epoch(batch_size):,} epochs here; "
            f"received --epochs={config['epochs']}"
        )
    if batch_size % replicas:
        raise RunError(
            f"a batch that the replicas cannot share: --batch_size={batch_size} is not "
            f"a multiple of the {replicas} replicas of --strategy={config['strategy']}"
        )
    if batch_size // replicas % share:
        raise RunError(
            f"a batch that the population cannot share: --batch_size={batch_size}"
            f"{f' over {replicas} replicas' * (replicas > 1)} "
            f"is not a multiple of --population_size={share}"
        )


def workdir_name(f: flags.FlagValues, config: dict[str, Any]) -> str:
    """Return --workdir, or a name in runs/ that no run of other flags has."""
    if f.workdir:
        return str(files.expanded("workdir", f.workdir))
    first = ("dataset", "model", "mask_optimizer", "sparsity", "seed")
    parts = [str(config[name]) for name in first[:-1]] + [f"s{config['seed']}"]
    parts += [
        f"{name}={config[name]}"
        for name in config
        if name in f and name not in first and f[name].present
        if config[name] != f[name].default
    ]
    parts += [f"{name}={value}" for name, value in given_options(f).items()]
    if config["replicas"] > 1:
        parts.append(f"replicas={config['replicas']}")
    return os.path.join("runs", re.sub(r"[^\w.=,-]", "_", "-".join(parts)))
