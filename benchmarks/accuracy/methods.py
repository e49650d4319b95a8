"""The methods, the one thing that is tuned in each, and the search for it.

Nine configurations are tried of each method, on a validation split of the training set:
three learning rates of the weights by three values of the method's own knob, or nine
learning rates where it has none. The best on the mean over all cases of the search is
the default configuration of the method in every suite. Which methods there are, and
what is tuned of each, they say themselves (`keras_es.optimizers.register`).
"""

import dataclasses
import json
from pathlib import Path

# First: it sets what has to be set before TensorFlow loads.
from benchmarks import timing  # noqa: F401
from keras_es.optimizers import OPTIMIZERS, registry

RATES = (0.001, 0.003, 0.01)
RATES_ALONE = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02)

CHOSEN = Path(__file__).with_name("chosen.json")
"""What the search has found: {method: configuration}."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method in another setting, with the same knob; not one of the package's names.

    Attributes:
        method: Name of the method.
        allocation: Of the sparsity among layers, None for that of the suite.
        arguments: Arguments of the method.
        says: What it is, for readers of the table.
    """

    method: str
    allocation: str | None = None
    arguments: dict = dataclasses.field(default_factory=dict)
    says: str = ""


VARIANTS = {
    "gmp_uniform": Variant("gradual_magnitude", "uniform", {}, "every layer alike"),
    "gmp_erk": Variant("gradual_magnitude", "erk", {}, "Erdos-Renyi kernel"),
    "gmp_global": Variant(
        "gradual_magnitude", None, {}, "one threshold of |w| for all layers"
    ),
    "gmp_square_root": Variant(
        "gradual_magnitude", "square_root", {}, "by the square root of units"
    ),
    "from_uniform": Variant("guided_es", "uniform", {}, "from every layer alike"),
    "no_losses": Variant(
        "guided_es", None, {"mean_learning_rate": 0.0}, "the same without losses"
    ),
    "at_erk": Variant(
        "guided_es", "erk", {"mean_learning_rate": 0.0}, "ERK, without losses"
    ),
    "at_the_cost_of_erk": Variant(
        "guided_es",
        "erk",
        {"costs": {"conv2d": 784.0, "conv2d_1": 196.0, "logits": 1.0}},
        "as many multiplications as ERK, where losses want them (mnist-conv)",
    ),
    "from_the_start": Variant(
        "guided_es", None, {"sparsity_schedule": None}, "sparse from the first step"
    ),
    "from_the_start_uniform": Variant(
        "guided_es",
        "uniform",
        {"sparsity_schedule": None},
        "sparse from the first step, from every layer alike",
    ),
    "rigl_square_root": Variant(
        "rigl", "square_root", {}, "by the square root of units"
    ),
}
"""What else is compared: other allocations, and ours without its parts."""


def base(method):
    """Return the method that a variant is one of, or the method itself."""
    return VARIANTS[method].method if method in VARIANTS else method


def allocation(method, usual):
    """Return how sparsity is allocated among layers, `usual` if it does not say.

    `GuidedES` finds its own, and begins in all suites from the square roots of units.
    """
    usual = "square_root" if base(method) == "guided_es" else usual
    return (method in VARIANTS and VARIANTS[method].allocation) or usual


def knob_of(method):
    """Return what is tuned of a method, a `Tuned` or None, as it is declared there."""
    return registry.TUNED.get(base(method))


def methods():
    """Return the names of all methods, in the order of tables."""
    last = [name for name in ("static",) if name in OPTIMIZERS]
    first = sorted(set(OPTIMIZERS) - set(last), key=_place)
    return (*first, *last, "dense")


def _place(name):
    """Order of the table: those of ours first, others behind them."""
    order = (
        "guided_es", "guided_nes", "open_es", "snes", "bernoulli_nes",
        "gradual_magnitude", "rigl", "straight_through", "set",
    )  # fmt: skip
    return (order.index(name) if name in order else len(order), name)


def _replaced(schedule, **changes):
    return type(schedule).from_config({**schedule.get_config(), **changes})


def tuned_arguments(knob, value, optimizer, steps):
    """Return the argument that holds a knob, with a value of it.

    Args:
        knob: The `Tuned`.
        value: The value.
        optimizer: The optimizer as it is by default in such a run.
        steps: Steps of the run.
    """
    import keras

    if knob.argument is None:
        return {knob.name: value}
    if knob.of_run:
        value = max(1, int(value * steps))
    held = getattr(optimizer, knob.argument)
    field = knob.field or knob.name
    if isinstance(held, keras.optimizers.Optimizer):
        rate = _replaced(held._learning_rate, **{field: value})
        return {knob.argument: keras.optimizers.Adam(rate)}
    return {knob.argument: _replaced(held, **{field: value})}


METHODS = methods()
"""All methods, and a dense network, in the order of tables."""

NAMES = (*METHODS, *VARIANTS)
"""What can be compared."""


def grid(method):
    """Return the configurations that the search tries, dicts."""
    knob = knob_of(method)
    if knob is None:
        return [{"learning_rate": rate} for rate in RATES_ALONE]
    return [
        {"learning_rate": rate, knob.name: value}
        for rate in knob.rates or RATES
        for value in knob.values
    ]


def configuration(method, path=CHOSEN):
    """Return the configuration of a method: what was found, else the middle."""
    path = Path(path)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    knob = knob_of(method)
    middle = {} if knob is None else {knob.name: knob.values[1]}
    rates = RATES if knob is None else knob.rates or RATES
    # A variant was not tuned by itself unless it is there by its own name.
    default = found.get(base(method), {"learning_rate": rates[1], **middle})
    return found.get(method, default)


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
    variant = VARIANTS.get(method, Variant(method))
    knob, given = knob_of(method), {"seed": seed, **variant.arguments}
    cls = optimizers.get(variant.method)
    if method == "gmp_global":
        from benchmarks.accuracy.global_magnitude import GlobalMagnitude as cls

    def made(**arguments):
        return optimizers.for_run(
            cls, adam(), model, steps, begin_dense=True, **arguments
        )

    if knob is not None and knob.argument not in given:
        value = config[knob.name]
        given |= tuned_arguments(knob, value, made(), steps)
    return made(**given)
