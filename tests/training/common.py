"""Models, data and the comparison with plain Keras that the tests here share."""

import keras
import numpy as np

import keras_es
from keras_es.optimizers import SNES, Static


def data(n=32, features=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)).astype("float32")
    return x, rng.integers(0, classes, size=n)


def images(count=16):
    """Small images, and whether they are light."""
    x = np.random.default_rng(0).normal(size=(count, 6, 6, 1)).astype("float32")
    return x, (x.sum(axis=(1, 2, 3)) > 0).astype("int32")


def mlp(*between, features=6, classes=3, **dense):
    return keras.Sequential(
        [
            keras.Input((features,)),
            keras.layers.Dense(8, activation="tanh", **dense),
            *between,
            keras.layers.Dense(classes),
        ]
    )


def cross_entropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def sparse_mlp(*between, sparsity=0.5, **kwargs):
    return keras_es.sparsify(mlp(*between, **kwargs), sparsity, seed=0)


def compiled(model, optimizer=None, jit_compile=False, loss=None, **kwargs):
    """Compile without XLA, whose compilation takes most of a test's time."""
    model.compile(
        optimizer=optimizer or SNES(sgd(), population_size=4),
        loss=cross_entropy() if loss is None else loss,
        jit_compile=jit_compile,
        **kwargs,
    )
    return model


# At sparsity 0 every member has the mask of ones, so a step of any population that
# sees the whole batch is a step of plain Keras.
MASK_OPTIMIZERS = {
    "static": lambda inner: Static(inner),
    "snes": lambda inner: SNES(inner, population_size=4, batch_mode="full"),
}


def trains_as_keras(build, optimizer, fit, loss=None, rtol=1e-5, **compile_args):
    """Train a plain model and its masked twin; compare histories and weights.

    Args:
        build: Function () -> plain Keras model.
        optimizer: Key of MASK_OPTIMIZERS.
        fit: Function (model) -> History.
        loss: Of compile.
        rtol: Tolerance of the comparison.
        **compile_args: Of compile.

    Returns:
        The two models and the history of the plain one.
    """
    plain = build()
    masked = keras_es.sparsify(plain, sparsity=0.0)
    loss = cross_entropy() if loss is None else loss
    histories = []
    for model, method in ((plain, sgd()), (masked, MASK_OPTIMIZERS[optimizer](sgd()))):
        made = {
            k: keras.tree.map_structure(lambda f: f() if callable(f) else f, v)
            for k, v in compile_args.items()
        }
        compiled(model, method, loss=loss, **made)
        keras.utils.set_random_seed(1)
        histories.append(fit(model).history)
    want, got = histories
    assert set(want) <= set(got)
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol, 1e-6, err_msg=key)
    for a, b in zip(plain.weights, keras_es.strip_masks(masked).weights, strict=True):
        np.testing.assert_allclose(b, a, 10 * rtol, 1e-5, err_msg=a.path)
    return plain, masked, want
