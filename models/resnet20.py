"""`resnet20`: the residual network of 20 layers for CIFAR-10."""

import keras
from keras import layers


def build(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Three stages of three residual blocks, 16, 32, 64 channels: 271,098 parameters.

    Shortcuts have no weights: where channels double every second pixel is taken
    and zeros are appended.

    References:
        He et al. 2016, Deep residual learning, arXiv 1512.03385, section 4.2.
    """
    inputs = keras.Input(input_shape)
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for stage, channels in enumerate((16, 32, 64)):
        for block in range(3):
            strides = 2 if stage and not block else 1
            x = _block(x, channels, strides, f"stage{stage + 1}_{block + 1}")
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs, name="resnet20")


def _block(x, channels, strides, name):
    options = {"padding": "same", "use_bias": False}
    y = layers.Conv2D(channels, 3, strides, name=f"{name}a", **options)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(channels, 3, name=f"{name}b", **options)(y)
    y = layers.BatchNormalization()(y)
    if strides > 1:
        new = channels - x.shape[-1]
        x = keras.ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, new)))
    return layers.ReLU()(layers.Add()([x, y]))
