"""Small models and data that tests of optimizers share."""

import keras
import numpy as np

import keras_es
from keras_es import schedules
from keras_es.optimizers import OPTIMIZERS, EvolutionStrategy, Turns

INPUTS, HIDDEN, EXAMPLES = 12, 8, 32


POPULATIONS = sorted(
    name for name, cls in OPTIMIZERS.items() if issubclass(cls, EvolutionStrategy)
)
"""Methods with a population."""

DIRECTIONAL = sorted(
    name for name, cls in OPTIMIZERS.items() if hasattr(cls, "derivative")
)
"""Methods that estimate the gradient of the weights along random directions."""

STILL = ["static", *DIRECTIONAL]
"""Methods that leave masks as they are."""

FRESH_SLOTS = sorted(name for name, cls in OPTIMIZERS.items() if cls.resets_slots)
"""Methods that let the slots of weights that come back start anew."""


def data(seed=0, examples=EXAMPLES):
    random = np.random.default_rng(seed)
    x = random.normal(size=(examples, INPUTS)).astype("float32")
    y = (x @ random.normal(size=(INPUTS, 1)) > 0).astype("float32")
    return x, y


def make_model(sparsity=0.5, pattern=None, layers=()):
    """A masked two-layer network with the same weights and masks at each call."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((INPUTS,)),
            keras.layers.Dense(HIDDEN, activation="tanh", name="hidden"),
            *layers,
            keras.layers.Dense(1, activation="sigmoid", name="out"),
        ]
    )
    sparse = keras_es.sparsify(
        model, sparsity, pattern=pattern, exclude=["out"], seed=1
    )
    return sparse


def compiled(optimizer, model=None, **kwargs):
    model = make_model() if model is None else model
    kwargs = {"loss": "binary_crossentropy", "jit_compile": False} | kwargs
    model.compile(optimizer=optimizer, **kwargs)
    return model


def fit(model, epochs=1, xy=None, **kwargs):
    x, y = data() if xy is None else xy
    kwargs = {"batch_size": 16, "shuffle": False, "verbose": 0} | kwargs
    return model.fit(x, y, epochs=epochs, **kwargs)


def bound(optimizer, units=6, sparsity=0.5, seed=0):
    """Bind an optimizer to a model whose one masked weight has that many units."""
    keras.utils.set_random_seed(seed)
    layer = keras_es.layers.MaskedDense(1, sparsity=sparsity, use_bias=False)
    model = keras_es.ESSequential([keras.Input((units,)), layer])
    optimizer.build(model.trainable_variables)
    return model


def make(method, /, inner="adam", **kwargs):
    """Make the optimizer of that name, with a generation in each step.

    Arguments that a method without a population does not have are left out.
    """
    if method in POPULATIONS:
        kwargs.setdefault("population_size", 4)
        kwargs.setdefault("turns", Turns(kwargs["population_size"], 1))
        return OPTIMIZERS[method](inner, **kwargs)
    known = {"seed", "name", "masked_out", *SCHEDULES.get(method, {})}
    if method == "straight_through":
        known.add("score_optimizer")
    kwargs = {key: value for key, value in kwargs.items() if key in known}
    return OPTIMIZERS[method](inner, **SCHEDULES.get(method, {}) | kwargs)


def make_resting(method, /, inner="adam", **kwargs):
    """Make the optimizer of that name; by itself it leaves the first masks for long."""
    if method not in SCHEDULES:
        return make(method, inner, **kwargs)
    resting = {
        "update_schedule": schedules.ConstantUpdates(update_every=1000),
        "sparsity_schedule": schedules.ConstantSparsity(),
    }
    (kind,) = SCHEDULES[method]
    return OPTIMIZERS[method](inner, **{kind: resting[kind]}, **kwargs)


# Masks move after each step.
SCHEDULES = {
    "set": {"update_schedule": schedules.ConstantUpdates(0.3, update_every=1)},
    "rigl": {"update_schedule": schedules.ConstantUpdates(0.3, update_every=1)},
    "gradual_magnitude": {
        "sparsity_schedule": schedules.PolynomialSparsity(3, update_every=1)
    },
}


def weights_of(model):
    """All variables of model and optimizer as arrays, by path."""
    values = {v.path: v.numpy() for v in model.variables}
    for i, variable in enumerate(model.optimizer.variables):
        values[f"{i}:{variable.path}"] = variable.numpy()
    return values


def assert_goes_on_to_the_bit(tmp_path, make_optimizer, **kwargs):
    """Training saved and loaded after one of three epochs ends as without a stop.

    Args:
        tmp_path: Directory for the file.
        make_optimizer: Function () -> optimizer.
        **kwargs: Arguments of `compile`.

    Returns:
        The loaded model.
    """
    # That a second `fit` goes on where the first ended is a test of its own.
    whole = compiled(make_optimizer(), **kwargs)
    fit(whole, epochs=1)
    whole.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for model in (whole, loaded):
        fit(model, epochs=2)
    assert_same(weights_of(whole), weights_of(loaded))
    return loaded


def keeps_all_digits(variable):
    """Tell whether a variable is float64 and has numbers that float32 has not."""
    value = variable.numpy()
    return value.dtype == "float64" and (value.astype("float32") != value).any()


def assert_same(first, second):
    """Two results of `weights_of` are equal to the bit."""
    assert list(first.values()) and len(first) == len(second)
    for (name, a), b in zip(first.items(), second.values()):
        np.testing.assert_array_equal(a, b, err_msg=name)
