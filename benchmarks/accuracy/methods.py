"""The methods, the one thing that is tuned in each, and the search for it.

Nine configurations are tried of each method, on a validation split of the training set:
three learning rates of the weights by three values of the method's own knob, or nine
learning rates where it has none. The best on the mean over all cases of the search is
the default configuration of the method in every suite.
"""

import dataclasses
import json
from pathlib import Path

RATES = (0.001, 0.003, 0.01)
RATES_ALONE = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02)

CHOSEN = Path(__file__).with_name("chosen.json")
"""What the search has found: {method: configuration}."""


@dataclasses.dataclass(frozen=True)
class Knob:
    """What is tuned of a method besides the learning rate of the weights.

    Attributes:
        name: Its name.
        values: Values to try; the middle one is what is taken without a search.
        arguments: Function (value, optimizer, steps) -> arguments of the method, with
            the optimizer as it is by default.
    """

    name: str
    values: tuple
    arguments: object


def _replaced(schedule, **changes):
    return type(schedule).from_config({**schedule.get_config(), **changes})


def _drop_fraction(value, optimizer, steps):
    schedule = _replaced(optimizer.update_schedule, drop_fraction=value)
    return {"update_schedule": schedule}


def _end_share(value, optimizer, steps):
    end_step = max(1, int(value * steps))
    schedule = _replaced(optimizer.sparsity_schedule, end_step=end_step)
    return {"sparsity_schedule": schedule}


def _score_rate(value, optimizer, steps):
    import keras

    schedule = optimizer.score_optimizer._learning_rate
    schedule = _replaced(schedule, initial_learning_rate=value)
    return {"score_optimizer": keras.optimizers.Adam(schedule)}


def _sigma(value, optimizer, steps):
    return {"sigma": value}


KNOBS = {
    "straight_through": Knob("score_rate", (0.003, 0.01, 0.03), _score_rate),
    "guided_es": Knob("score_rate", (0.03, 0.09, 0.27), _score_rate),
    "bernoulli_nes": Knob("score_rate", (0.003, 0.01, 0.03), _score_rate),
    "open_es": Knob("score_rate", (0.02, 0.05, 0.12), _score_rate),
    "snes": Knob("sigma", (0.1, 0.3, 1.0), _sigma),
    "rigl": Knob("drop_fraction", (0.1, 0.3, 0.5), _drop_fraction),
    "set": Knob("drop_fraction", (0.1, 0.3, 0.5), _drop_fraction),
    "gradual_magnitude": Knob("end_share", (0.5, 0.75, 0.9), _end_share),
    "static": None,
    "dense": None,
}
"""Knob of each method, in the order of tables."""

METHODS = tuple(KNOBS)


def grid(method):
    """Return the configurations that the search tries, dicts."""
    knob = KNOBS[method]
    if knob is None:
        return [{"learning_rate": rate} for rate in RATES_ALONE]
    return [
        {"learning_rate": rate, knob.name: value}
        for rate in RATES
        for value in knob.values
    ]


def configuration(method, path=CHOSEN):
    """Return the configuration of a method: what was found, else the middle."""
    path = Path(path)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    knob = KNOBS[method]
    middle = {} if knob is None else {knob.name: knob.values[1]}
    return found.get(method, {"learning_rate": RATES[1], **middle})


def best(rows):
    """Return the configuration of each method with the best mean accuracy.

    Args:
        rows: Results on validation splits; each configuration was tried in each case.
    """
    sums = {}
    for row in rows:
        key = json.dumps(row["config"], sort_keys=True)
        sums.setdefault(row["method"], {}).setdefault(key, []).append(row["accuracy"])
    chosen = {}
    for method, tried in sums.items():
        full = max(len(values) for values in tried.values())
        means = {
            key: sum(values) / full
            for key, values in tried.items()
            if len(values) == full
        }
        chosen[method] = json.loads(max(means, key=means.get))
    return chosen


def optimizer(method, config, model, steps, seed):
    """Return the optimizer of a run: Adam for the weights, its rate a cosine to 0."""
    import keras

    from keras_es import optimizers

    def adam():
        rate = keras.optimizers.schedules.CosineDecay(config["learning_rate"], steps)
        return keras.optimizers.Adam(rate)

    if method == "dense":
        return adam()
    cls, knob = optimizers.get(method), KNOBS[method]

    def made(**arguments):
        return optimizers.for_run(
            cls, adam(), model, steps, begin_dense=True, **arguments
        )

    arguments = {"seed": seed}
    if knob is not None:
        arguments |= knob.arguments(config[knob.name], made(), steps)
    return made(**arguments)
