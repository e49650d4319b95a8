"""What `find` refuses of its arguments."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_es import _arguments as kinds
from keras_es.lottery import data as of_data
from keras_es.lottery import scores
from keras_es.lottery.ticket import CONTROLS


def names(exclude):
    """Return the rules of layers that are left out, if they are such."""
    fine = isinstance(exclude, list | tuple | set | frozenset)
    if not fine or not all(isinstance(rule, str) for rule in exclude):
        raise ValueError(
            "`exclude` must be a list of layer paths or regular expressions. "
            f"Received: exclude={exclude!r}"
        )
    return exclude


def builds(build):
    """Refuse what is no function that builds a model: a model, above all."""
    if not callable(build) or isinstance(build, keras.layers.Layer):
        raise ValueError(
            "`build` must be a function of no arguments that returns a built model, "
            f"not the model itself. Received: build={build!r}"
        )


def built(model):
    """Return what `build` returned, if it is a model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "`build` must return a built keras.Model. "
            f"Received: build() of type {type(model).__name__}"
        )
    return model


def validation(data):
    """Return validation data that `evaluate` takes, before hours of training."""
    fits = isinstance(data, tuple) and len(data) in (2, 3)
    if not (data is None or fits or isinstance(data, tf.data.Dataset)):
        kind = type(data).__name__
        what = f"a tuple of {len(data)}" if isinstance(data, tuple) else kind
        raise ValueError(
            "`validation_data` must be None, a tuple (x, y) or (x, y, sample_weight) "
            f"of arrays, or a tf.data.Dataset. Received: validation_data={what}"
        )
    if fits:
        sizes = of_data.sizes([p for p in data if p is not None])
        if not of_data.are_of_one_size(sizes):
            raise ValueError(
                "`validation_data` must have as many examples in each array. Received: "
                f"arrays of {sorted(map(str, sizes))} examples"
            )
    return data


def own(arguments, function, of):
    """Refuse arguments that a function of Keras does not take, before any training."""
    known = inspect.signature(function).parameters
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ValueError(
            f"`{of}` must get arguments that it takes: {sorted(known)[:-1]}. "
            f"Received: {unknown}"
        )


def executions(arguments, **counts):
    """Refuse steps per execution that no count of steps is a multiple of.

    Keras takes whole executions: a fit would go past its end, and past a step that
    rounds are rewound to.
    """
    each = arguments.get("steps_per_execution", 1)
    kinds.integer(1)("steps_per_execution", each)
    for name, count in counts.items():
        if isinstance(count, int) and count % each:
            raise ValueError(
                f"`{name}` must be a multiple of `steps_per_execution`, for Keras "
                f"takes whole executions. Received: {name}={count}, "
                f"steps_per_execution={each}"
            )


def class_weight(value):
    """Return None or a dict of numbers, what `fit` takes."""
    if value is not None and not isinstance(value, dict):
        raise ValueError(
            "`class_weight` must be None or a dict from class to weight. "
            f"Received: class_weight={value!r}"
        )
    return value


def progress(verbose):
    """Return 1 for a progress bar, or 0 for none."""
    if kinds.integer(0)("verbose", verbose) > 1:
        raise ValueError(
            "`verbose` must be 1 for a progress bar over rounds, or 0 for none. "
            f"Received: verbose={verbose!r}"
        )
    return int(verbose)


def below(name, value, bits):
    """Return an integer in [0, 2**bits)."""
    if kinds.integer(0)(name, value) >= 2**bits:
        raise ValueError(
            f"`{name}` must be an integer in [0, 2**{bits}). Received: {name}={value!r}"
        )
    return int(value)


def rewinding(value, steps):
    """Return to where rounds rewind: a step before the last, or "learning_rate"."""
    if isinstance(value, str) and value == "learning_rate":
        return value
    if isinstance(value, str) or kinds.integer(0)("rewind", value) >= steps:
        raise ValueError(
            "`rewind` must be an integer of at least 0, below `steps`, or "
            f'"learning_rate". Received: rewind={value!r}, steps={steps}'
        )
    return int(value)


def check_score(score, method):
    """Refuse a score that there is not, or that the method cannot give."""
    if isinstance(score, str) and score in CONTROLS and score != "random":
        raise ValueError(
            f"score={score!r} is of a ticket that there is already: "
            f"ticket.control({score!r}) has the numbers or the places of that ticket. "
            f"Received: score={score!r}"
        )
    if not callable(score):
        kinds.choice(*scores.SCORES)("score", score)
    if score == "snr":
        scores.check_snr(method)


def checked_scores(found, shapes):
    """Return what a function of a user's own gave, if it has all shapes."""
    fits = isinstance(found, dict) and set(found) == set(shapes)
    if not fits or any(np.shape(found[n]) != s for n, s in shapes.items()):
        raise ValueError(
            "A function as `score` must return {name: array} with an array of the "
            f"shape of each weight: {shapes}. Received: {type(found).__name__} with "
            f"{ {n: np.shape(v) for n, v in found.items()} if fits else found!r}"
        )
    return found
