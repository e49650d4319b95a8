"""The whole step lowers to one XLA program that a TPU compiler takes.

No TPU is needed to see that: whatever the device, XLA gets the same program (HLO).
"""

import re

import keras
import pytest
import tensorflow as tf

import keras_es
from keras_es.optimizers import (
    SNES,
    BernoulliNES,
    GradualMagnitude,
    GuidedNES,
    OpenES,
    RigL,
    Static,
    Turns,
)
from keras_es.schedules import ConstantUpdates
from tests.training.common import cross_entropy, data, mlp, sgd

pytestmark = pytest.mark.slow

METHODS = {
    "snes": lambda: SNES(sgd(), 4),
    "snes, turns": lambda: SNES(sgd(), 4, turns=Turns(2, 2)),
    "open_es": lambda: OpenES(sgd(), 4, "full"),
    "bernoulli_nes": lambda: BernoulliNES(sgd(), 4),
    "guided_nes": lambda: GuidedNES("adam", 4),
    "rigl": lambda: RigL("sgd", update_schedule=ConstantUpdates(update_every=1)),
    "gradual_magnitude": lambda: GradualMagnitude("sgd", end_step=10),
    "static": lambda: Static(keras.optimizers.Adam(clipnorm=1.0)),
}

# What leaves the device, or keeps state of its own, or is made for CPU or GPU only.
# Random bits are made by `rng-bit-generator`, a function of its seed.
REFUSED = {
    "custom-call", "infeed", "outfeed", "send", "recv", "rng",
    "rng-get-and-update-state", "dynamic-reshape", "set-dimension-size",
}  # fmt: skip


def convnet():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.2, seed=1),
            keras.layers.Dense(3),
        ]
    )


def program(build, optimizer, x, y):
    """Return the HLO of the whole train step, as text."""
    model = keras_es.sparsify(build(), 0.5, seed=0)
    model.compile(optimizer, cross_entropy(), metrics=["accuracy"])
    model.train_on_batch(x, y)  # builds everything
    step = tf.function(model.train_step, autograph=False, jit_compile=True)
    batch = tf.constant(x), tf.constant(y)
    return step.experimental_get_compiler_ir(batch)(stage="hlo")


def instructions(hlo):
    """Return the names of all operations of a program."""
    return set(re.findall(r"= \S+ ([\w-]+)\(", hlo)) | set(
        re.findall(r"= \([^=]*\) ([\w-]+)\(", hlo)
    )


def check(hlo):
    assert hlo.count("ENTRY ") == 1
    used = instructions(hlo)
    assert {"parameter", "dot"} <= used or "convolution" in used
    assert used & REFUSED == set()
    assert "[<=" not in hlo, "a dimension is not static"
    assert not re.search(r"f64\[\d", hlo), "arrays of double precision are emulated"


@pytest.mark.parametrize("method", METHODS)
def test_step_is_one_program_of_allowed_operations(method):
    x, y = data(16)
    check(program(lambda: mlp(keras.layers.Dropout(0.2)), METHODS[method](), x, y))


def test_step_of_a_convnet():
    x, y = data(16, features=64)
    check(program(convnet, METHODS["guided_nes"](), x.reshape(-1, 8, 8, 1), y))


def test_products_are_in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    hlo = program(mlp, METHODS["guided_nes"](), *data(16))
    check(hlo)
    # Sums that tell whether numbers are finite, or count, are products with ones.
    lines = [line for line in hlo.splitlines() if "/MatVec" not in line]
    products = re.findall(r"= (\w+)\[([\d,]*)\]\S* dot\(", "\n".join(lines))
    shapes = [shape for dtype, shape in products if dtype == "f32"]
    assert len(products) > 6 and all(dtype in ("bf16", "f32") for dtype, _ in products)
    # What is left in single precision are the losses of the members.
    assert all(shape == "1,2,4" for shape in shapes), shapes
