"""The models of train.py: shapes, sizes, names."""

import numpy as np
import pytest

import models

SHAPES = {
    "mlp": ((8, 8, 1), 10),
    "lenet": ((28, 28, 1), 10),
    "mnist_11k": ((28, 28, 1), 10),
    "cifar_small": ((32, 32, 3), 10),
    "mnist_30k": ((28, 28, 1), 10),
    "cifar_convnet": ((32, 32, 3), 10),
    "resnet20": ((32, 32, 3), 10),
}


def build(name):
    input_shape, classes = SHAPES[name]
    return models.ARCHITECTURES[name].build(input_shape, classes)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_images_become_logits(name):
    input_shape, classes = SHAPES[name]
    images = np.zeros((2, *input_shape), "float32")
    assert build(name)(images).shape == (2, classes)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_last_layer_stays_dense(name):
    model = build(name)
    assert model.layers[-1].name in models.ARCHITECTURES[name].dense_layers
    assert model.layers[-1].activation.__name__ == "linear"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mlp", 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
        ("lenet", 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10),
        ("mnist_11k", 11_274),
        ("cifar_small", 118_442),
        ("resnet20", 432 + 13_824 + 50_688 + 202_752 + 2_752 + 650),
        ("mnist_30k", 25 * 16 + 16 + 25 * 16 * 32 + 32 + 7 * 7 * 32 * 10 + 10),
    ],
)
def test_number_of_parameters(name, parameters):
    assert build(name).count_params() == parameters


def test_cifar_convnet_has_six_convolutions_and_about_a_million_weights():
    model = build("cifar_convnet")
    kernels = [w for w in model.trainable_weights if w.path.endswith("kernel")]
    assert len([k for k in kernels if len(k.shape) == 4]) == 6
    assert 1.0e6 < sum(np.prod(k.shape) for k in kernels) < 1.2e6


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_other_shapes_and_class_counts(name):
    model = models.ARCHITECTURES[name].build((16, 12, 3), 5)
    assert model.output_shape == (None, 5)
