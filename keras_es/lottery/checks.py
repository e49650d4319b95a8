"""What `find` refuses of its arguments."""

import numpy as np

from keras_es import _arguments as kinds
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
