"""Odd values for every argument of every public callable: refused in words, or used.

Each argument of each callable gets each odd value, the others being fine, and with a
fixed seed some pairs of arguments get two. Nothing is trained: objects are made, layers
built, small functions called.
"""

import copy
import inspect
import math
import random
import re
import traceback

import keras
import matplotlib.figure
import numpy as np
import pytest

import keras_es
from keras_es import (
    callbacks,
    datasets,
    layers,
    lottery,
    noise,
    optimizers,
    patterns,
    plots,
    schedules,
    unrolled,
)
from tests.marks import slow_unless

PACKAGE = keras_es.__path__[0]


def a_function(*args, **kwargs):
    """A function that fits nowhere."""


class AClass:
    """A class that fits nowhere."""


class AnObject:
    def __repr__(self):
        return "AnObject()"


ODD = {
    "None": None,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "-1": -1,
    "0": 0,
    "0.0": 0.0,
    "1e30": 1e30,
    "1e-320": 1e-320,
    "True": True,
    "'x'": "x",
    "''": "",
    "'['": "[",
    "[]": [],
    "[None]": [None],
    "(1, 'x')": (1, "x"),
    "{}": {},
    "{'x': 1}": {"x": 1},
    "{0: None}": {0: None},
    "{'class_name': 'x'}": {"class_name": "x", "config": {}},
    "object": AnObject(),
    "1j": 1j,
    "int64": np.int64(3),
    "float32": np.float32(0.5),
    "float16": np.float16(0.5),
    "float32 nan": np.float32("nan"),
    "array": np.array([1.0, 2.0]),
    "array of nan": np.array([np.nan, 1.0]),
    "array of objects": np.array([None, "x"]),
    "bytes": b"x",
    "function": a_function,
    "class": AClass,
    "huge": 10**40,
    "-huge": -(10**40),
}

SCALARS = {
    "int8": np.int8(100),
    "uint8": np.uint8(200),
    "uint64": np.uint64(2**64 - 1),
    "float16": np.float16(4.0),
    "float16 inf": np.float16("inf"),
    "longdouble": np.longdouble(0.5),
    "longdouble 1e400": np.longdouble("1e400"),
    "0 axes": np.array(0.5, "float16"),
}
"""Numbers of NumPy that are shorter, or longer, than what they are compared with."""

REQUIRED = inspect.Parameter.empty
RAW = re.compile(
    r"not supported between|is not iterable|has no attribute|unsupported operand"
    r"|not callable|not subscriptable|could not convert|must be real number"
    r"|cannot be interpreted|has no len|unhashable|truth value|Cannot convert"
    r"|invalid literal|positional argument but|must be str|expected str|expected string"
    r"|object cannot be|not a valid|too large to convert|only length-1|loop of ufunc"
    r"|No such file"
)
"""Words of Python and NumPy that no message of ours has."""


def plain_model():
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(4)]
    )


class Decay(unrolled.Task):
    horizon = 20

    def build(self):
        self.rate = self.add_weight(shape=(), initializer="zeros", name="rate")

    def initial_state(self, seed, data=None):
        return 1.0 + 0.1 * unrolled.normal((), seed)

    def step(self, state, t, seed, data=None):
        return state * (1.0 - self.rate), state**2


def recurrent_model():
    inputs = keras.Input(batch_shape=(2, None, 3))
    hidden = keras.layers.GRU(4, stateful=True, return_sequences=True)(inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(hidden))


def policy_model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def of_optimizers():
    for name, cls in {**optimizers.OPTIMIZERS, **optimizers.PURE}.items():
        if not cls.__module__.startswith("keras_es."):
            continue  # of another test
        if name in optimizers.OPTIMIZERS:
            yield cls, {"inner_optimizer": "sgd"}, serialized
        if name in optimizers.PURE:
            yield cls, {"inner_optimizer": None}, serialized
    sparse = keras_es.sparsify(plain_model(), 0.5)
    run = {"inner_optimizer": "sgd", "model": sparse, "steps": 100}
    yield optimizers.for_run, {"cls": "rigl", **run}, None
    yield optimizers.for_run, {"cls": "open_es", **run}, None
    yield optimizers.get, {"name": "snes"}, None
    yield optimizers.register, {"name": "of_the_fuzz"}, None


def of_options():
    once = schedules.OneShot(5)
    for cls, fine in {
        noise.Full: {},
        noise.LowRank: {"rank": 1},
        noise.Orthogonal: {},
        noise.Outputs: {"sigma": 0.3},
        noise.Layerwise: {},
        noise.Active: {},
        optimizers.Sampled: {"count": 4},
        optimizers.Turns: {},
        optimizers.Chunks: {"members": 4},
        optimizers.Falling: {"schedule": once},
    }.items():
        yield cls, fine, serialized


def of_schedules_and_patterns():
    for cls, fine in {
        schedules.ConstantSparsity: {},
        schedules.OneShot: {"end_step": 5},
        schedules.PolynomialSparsity: {"end_step": 5},
    }.items():
        yield cls, fine, lambda s: (serialized(s), s(3, 0.9), s.is_due(3))
    for cls, fine in {
        schedules.ConstantUpdates: {},
        schedules.CosineUpdates: {"end_step": 5},
    }.items():
        yield cls, fine, lambda s: (serialized(s), s(3), s.is_due(3))
    for cls, fine in {
        patterns.Unstructured: {},
        patterns.Block: {"rows": 2, "cols": 2},
        patterns.Channel: {},
        patterns.Rows: {},
        patterns.NByM: {"n": 2, "m": 4},
    }.items():
        yield cls, fine, lambda p: (serialized(p), p.units_shape((8, 8)))
    yield patterns.get, {"identifier": None}, None
    yield patterns.register, {"cls": AClass}, None


def of_layers():
    sizes = {"sparsity": 0.5, "mask_seed": 3}
    blocks = {**sizes, "block_size": 2}
    for cls, fine, shape in (
        (layers.MaskedDense, {"units": 4}, (2, 8)),
        (
            layers.MaskedEinsumDense,
            {"equation": "ab,bc->ac", "output_shape": 4},
            (2, 8),
        ),
        (layers.MaskedConv1D, {"filters": 4, "kernel_size": 2}, (2, 8, 2)),
        (layers.MaskedConv2D, {"filters": 4, "kernel_size": 2}, (2, 8, 8, 2)),
        (layers.MaskedDepthwiseConv2D, {"kernel_size": 2}, (2, 8, 8, 2)),
        (layers.MaskedEmbedding, {"input_dim": 8, "output_dim": 4}, (2, 3)),
        (layers.MaskedSimpleRNN, {"units": 4}, (2, 3, 8)),
        (layers.MaskedGRU, {"units": 4}, (2, 3, 8)),
        (layers.MaskedLSTM, {"units": 4}, (2, 3, 8)),
        (layers.MaskedSimpleRNNCell, {"units": 4}, (2, 8)),
        (layers.MaskedGRUCell, {"units": 4}, (2, 8)),
        (layers.MaskedLSTMCell, {"units": 4}, (2, 8)),
        (layers.BlockSparseDense, {"units": 4}, (2, 8)),
        (layers.BlockSparseGRU, {"units": 4}, (2, 3, 8)),
        (layers.BlockSparseGRUCell, {"units": 4}, (2, 8)),
    ):
        own = blocks if "BlockSparse" in cls.__name__ else {**sizes, "pattern": None}

        def use(layer, shape=shape):
            layer.build(shape)
            return layer.get_config()

        # What the plain layer makes of its own arguments is Keras's.
        yield cls, {**fine, **own}, use, list(own)


def of_models():
    plain, sparse = plain_model(), keras_es.sparsify(plain_model(), 0.5)
    both = {"model": plain, "sparsity": 0.5}
    yield keras_es.sparsify, both, str
    yield keras_es.strip_masks, {"model": sparse}, str
    yield keras_es.sparsity_report, {"model": sparse}, str
    yield keras_es.masked_weights, {"model": sparse}, str
    yield keras_es.es_model, {"model": plain}, str
    yield keras_es.multiplications_per_weight, {"model": plain}, None


def of_minimize():
    def fn(x):
        return float(np.sum(np.asarray(x)))

    fine = {"fn": fn, "x0": [0.0, 1.0], "generations": 1, "verbose": 0}
    yield keras_es.minimize, fine, lambda found: (found.loss, found.mean)


def of_datasets():
    x, y = np.zeros((24, 8, 8, 1), "float32"), np.zeros(24, "int32")
    arrays = dict(zip(("x_train", "y_train", "x_test", "y_test"), (x, y, x, y)))
    tiny = datasets.ImageDataset("tiny", **arrays, num_classes=10)

    def load(name, data_dir=None):  # Other strings ask servers.
        return datasets.load("digits" if isinstance(name, str) else name, data_dir)

    yield load, {"name": "digits"}, None
    yield (
        datasets.ImageDataset,
        {"name": "tiny", **arrays, "num_classes": 10},
        lambda d: (d.steps_per_epoch(8), d.input_shape, d.scale),
    )
    yield tiny.steps_per_epoch, {"batch_size": 8}, None
    yield tiny.train_batches, {"batch_size": 8, "seed": 0}, lambda b: next(iter(b))
    yield tiny.test_batches, {"batch_size": 8}, lambda b: next(iter(b))


def of_callbacks(folder):
    checkpoint = callbacks.AtomicCheckpoint(folder)
    yield callbacks.AtomicCheckpoint, {"folder": folder}, None
    yield callbacks.MaskTensorBoard, {"log_dir": folder}, None
    yield callbacks.StopOnSignal, {"checkpoint": checkpoint}, None
    yield callbacks.TrainingStopped, {"signum": 2, "step": 1}, None


def of_plots():
    axes = matplotlib.figure.Figure().add_subplot()
    history = [{"loss": 1.0}, {"loss": 0.5}]
    yield plots.mask_picture, {"mask": np.eye(4), "max_side": 2}, None
    yield plots.plot_mask, {"axes": axes, "mask": np.eye(4), "title": "x"}, None
    yield plots.plot_curves, {"axes": axes, "history": history, "name": "loss"}, None
    bars = {"names": ["a"], "sparsities": [0.5], "counts": [3]}
    yield plots.plot_sparsity, {"axes": axes, **bars}, None
    masks = {"dense/kernel": np.eye(4)}
    fine = {"history": history, "masks": masks, "title": "x"}
    yield plots.run_report, fine, None


def of_unrolled():
    rule = {"inner_optimizer": "sgd", "particles": 4, "unroll_length": 5, "sigma": 0.1}
    whole = {k: v for k, v in rule.items() if k != "unroll_length"}
    options = ["clip", "locked", "burn_in", "seed", "name"]
    for cls, fine, more in (
        (unrolled.NRES, rule, options),
        (unrolled.GPES, {**rule, "period": 2}, options),
        (unrolled.PES, rule, ["noise", *options]),
        (unrolled.TruncatedES, rule, options),
        (unrolled.FullES, whole, ["clip", "seed", "name"]),
    ):
        yield cls, fine, serialized, [*fine, *more]
    fine = {"model": recurrent_model(), "loss": "mse", "horizon": 20}
    yield unrolled.Recurrent, fine, None, list(fine)
    yield unrolled.UnrolledModel, {"task": Decay()}, None, ["task"]
    model = unrolled.UnrolledModel(Decay())
    options = ["optimizer", "run_eagerly", "jit_compile"]
    yield model.compile, {"optimizer": unrolled.NRES(**rule)}, None, options
    yield unrolled.normal, {"shape": (2,), "seed": [1, 2]}, None
    yield unrolled.uniform, {"shape": (2,), "seed": [1, 2]}, None
    yield unrolled.fold_in, {"seed": [1, 2], "number": 3}, None


def of_gymnasium():
    pytest.importorskip("gymnasium")
    fine = {"env_id": "CartPole-v1", "policy": policy_model()}
    more = ["horizon", "get_state", "set_state", "env_kwargs"]
    yield unrolled.GymnasiumTask, fine, None, [*fine, *more]


def of_lottery():
    # Without `build` all arguments are checked, and nothing is trained.
    fine = {
        "build": None, "strategy": "sgd", "data": None, "rounds": 2, "keep": 0.5,
        "score": "magnitude", "rewind": 1, "steps": 3, "batch_size": 8,
        "layerwise": False, "seed": 0, "checkpoint_every": 1, "on_round": None,
        "verbose": 0, "exclude": (), "compile_arguments": None,
    }  # fmt: skip
    yield lottery.find, fine, None, [n for n in fine if n not in ("build", "data")]
    ticket = lottery.Ticket.dense(plain_model())
    few = {"steps": 3, "batch_size": 8, "seed": 0, "checkpoint_every": 1}
    given = {"ticket": None, "strategy": "sgd", "data": None, **few}
    yield lottery.transfer, given, None, ["ticket"]
    yield lottery.Ticket.dense, {"model": None}, None
    yield lottery.Ticket.load, {"path": "none.npz"}, None
    yield ticket.at, {"round": 0}, str
    yield ticket.control, {"kind": "random"}, str
    data = np.zeros((2, 8), "float32"), np.zeros((2, 4), "float32")
    model = plain_model()
    ends = {"model_a": model, "model_b": None, "data": data, "points": 3}
    yield lottery.connectivity, {**ends, "loss": "mse"}, None, ["model_b", "points"]
    around = {"model": None, "data": data, "scales": (0.0,), "draws": 1, "seed": 0}
    around |= {"iterations": 1, "batch_size": 2, "loss": "mse"}
    yield lottery.flatness, around, None
    axes = matplotlib.figure.Figure().add_subplot()
    yield lottery.plot_rounds, {"axes": axes, "tickets": {}, "name": "x"}, None
    yield lottery.plot_connectivity, {"axes": axes, "lines": {}}, None
    yield lottery.plot_flatness, {"axes": axes, "found": {}}, None


def serialized(made):
    return made.get_config()


def tried(call, fine, use, names=None, one_of=1):
    """Yield (what was given, error or None, result) for odd values.

    Of an argument only one value of so many, another one for the next argument.
    """
    names = names or list(inspect.signature(call).parameters)
    names = [n for n in names if n not in ("args", "kwargs")]
    draw = random.Random(0)
    pairs = 20 // one_of if names[1:] else 0
    odd = [
        {name: key}
        for place, name in enumerate(names)
        for i, key in enumerate(ODD)
        if (i + place) % one_of == 0
    ]
    odd += [
        {a: draw.choice(list(ODD)), b: draw.choice(list(ODD))}
        for a, b in (draw.sample(names, 2) for _ in range(pairs))
    ]
    for keys in odd:
        given = {**fine, **{name: ODD[key] for name, key in keys.items()}}
        # Some are changed by whom they are given to.
        given = {
            k: copy.copy(v) if isinstance(v, dict) else v for k, v in given.items()
        }
        try:
            made = call(**given)
            yield keys, None, use(made) if use else made
        except Exception as error:
            yield keys, error, None


def fault_of(error):
    """Return what is wrong with an error, None if it is one of words."""
    ours = type(error).__module__.startswith("keras_es")
    if not ours and not isinstance(error, ValueError | TypeError | OSError):
        return "class"
    text, last = str(error), traceback.extract_tb(error.__traceback__)[-1]
    if RAW.search(text.split("Received")[0]):
        return "raw text"
    if isinstance(error, TypeError) and "keras_es" in last.filename:
        return None if "(" in text else "raw text"
    if ours or not last.filename.startswith(PACKAGE) or "Received" in text:
        return None
    return "no Received"


def not_finite(value):
    """Tell whether a config has a number in it that float32 cannot hold."""
    arrays = [np.asarray(v) for v in keras.tree.flatten(value)]
    with np.errstate(over="ignore"):
        floats = [a.astype("float32") for a in arrays if a.dtype.kind == "f"]
    return not all(np.isfinite(a).all() for a in floats)


ROOMS = {
    "optimizers": of_optimizers,
    "options": of_options,
    "schedules and patterns": of_schedules_and_patterns,
    "layers": of_layers,
    "models": of_models,
    "minimize": of_minimize,
    "data sets": of_datasets,
    "plots": of_plots,
    "unrolled": of_unrolled,
    "gymnasium": of_gymnasium,
    "lottery": of_lottery,
}


def faults(cases, one_of=1):
    for call, *rest in cases:
        name = getattr(call, "__qualname__", repr(call))
        for keys, error, result in tried(call, *rest, one_of=one_of):
            wrong = None
            if error is not None:
                wrong = fault_of(error)
            elif not_finite(result):
                wrong = "accepted"
            if wrong:
                text = f"{type(error).__name__}: {str(error)[:150]}"
                yield f"{wrong}: {name}({keys}): {text}"


LARGE = ("optimizers", "layers", "minimize", "unrolled")
"""Rooms of which the fast tests try one value of four, slow ones and a release all."""


@pytest.mark.parametrize("room", ROOMS)
def test_odd_arguments_are_used_or_refused_in_words(room):
    one_of = 4 if room in LARGE else 1
    assert list(faults(ROOMS[room](), one_of)) == []


@pytest.mark.parametrize("room", slow_unless([], LARGE, ["minimize", "unrolled"]))
def test_all_odd_arguments_are_used_or_refused_in_words(room):
    assert list(faults(ROOMS[room]())) == []


CHEAP = ["options", "schedules and patterns", "plots"]


def test_scalars_of_every_width(tmp_path, monkeypatch):
    # Optimizers and layers check by the same kinds.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(globals(), "ODD", SCALARS)
    for cases in (*(ROOMS[room]() for room in CHEAP), of_callbacks(tmp_path)):
        assert list(faults(cases)) == []


def test_odd_arguments_of_callbacks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(faults(of_callbacks(tmp_path))) == []
