"""Networks of the suites that are not in `models`."""

import math

import keras
from keras import layers, ops


def _sign(x):
    """+1 or -1; no gradient comes through a comparison."""
    return ops.where(x >= 0.0, 1.0, -1.0)


@keras.saving.register_keras_serializable(package="benchmarks.pure")
class Sign(layers.Layer):
    """The sign of each input, +1 for 0."""

    def call(self, x):
        return _sign(x)


@keras.saving.register_keras_serializable(package="benchmarks.pure")
class Patches(layers.Layer):
    """Square patches of images, [batch, positions, size * size * channels].

    Args:
        size: Side of a patch.
        stride: Pixels from one patch to the next.
    """

    def __init__(self, size, stride, **kwargs):
        super().__init__(**kwargs)
        self.size, self.stride = size, stride

    def call(self, x):
        found = ops.image.extract_patches(x, self.size, self.stride, padding="valid")
        return ops.reshape(found, (-1, *self.compute_output_shape(x.shape)[1:]))

    def compute_output_shape(self, input_shape):
        _, *sides, channels = input_shape
        positions = math.prod((s - self.size) // self.stride + 1 for s in sides)
        return (input_shape[0], positions, self.size**2 * channels)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "stride": self.stride}


@keras.saving.register_keras_serializable(package="benchmarks.pure")
class BinaryDense(layers.Layer):
    """x sign(W) * scale: a product with weights of +1 and -1.

    Args:
        units: Number of outputs.
        scale: Fixed number.
        std: Of the first W. Signs do not see it; but noise of one sigma flips the
            fewer of them, the larger it is.
    """

    def __init__(self, units, scale=1.0, std=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.scale, self.std = units, scale, std

    def build(self, input_shape):
        normal = keras.initializers.RandomNormal(stddev=self.std)
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, initializer=normal, name="kernel")

    def kernel_product(self, x, kernel):
        """Return x sign(W) * scale (see `OpenES`, `output_sigma`)."""
        # The second term is 0; by it what comes back passes straight to the kernel.
        signs = _sign(kernel) + (kernel - ops.stop_gradient(kernel))
        return ops.matmul(x, signs) * self.scale

    def call(self, x):
        return self.kernel_product(x, self.kernel)

    def get_config(self):
        own = {"units": self.units, "scale": self.scale, "std": self.std}
        return {**super().get_config(), **own}


def binary(input_shape, num_classes, size=5, stride=4, filters=32, logit_std=2.0):
    """Binary filters on patches, signs, and binary weights to the classes.

    No biases and no other numbers than signs: a bit for each weight and activation. A
    fixed factor gives the first logits the standard deviation `logit_std`. A sign of a
    filter that changes disturbs all classes, so fewer of them do.
    """
    patches = Patches(size, stride)
    positions = patches.compute_output_shape((None, *input_shape))[1]
    scale = logit_std / math.sqrt(positions * filters)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            patches,
            BinaryDense(filters, std=2.0, name="filters"),
            Sign(),
            layers.Flatten(),
            BinaryDense(num_classes, scale, std=0.5, name="logits"),
        ],
        name="binary",
    )


def cifar_patches(input_shape, num_classes):
    """Convolutions whose patches do not overlap, 135,178 parameters on CIFAR-10.

    Each is a product of matrices, which a peer that maps over members does fast too.
    """
    model = keras.Sequential([keras.Input(input_shape)], name="cifar_patches")
    for filters, side in ((64, 4), (128, 2), (128, 2)):
        model.add(layers.Conv2D(filters, side, side, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(num_classes, name="logits"))
    return model
