"""The networks of the suite `formats`, by pattern and sparsity, not trained."""

import functools

MLP, CNN = "mlp 3 x 512", "1x1 convolutions"
CASES = {
    MLP: (
        ("dense", 0.0),
        ("weights", 0.9),
        ("blocks of 4 inputs", 0.75), ("blocks of 4 inputs", 0.9),
        ("block-sparse layers", 0.9),
        ("channels, compact", 0.5),
    ),
    CNN: (
        ("dense", 0.0),
        ("weights", 0.9),
        ("blocks of 4 inputs", 0.9),
        ("channels, compact", 0.5),
    ),
}  # fmt: skip
"""Network -> pairs of pattern and sparsity of its hidden layers."""


def build(network, pattern, sparsity, width=512):
    """Return a model that is ready for export."""
    import keras

    import keras_es
    from keras_es.patterns import Block, Channel, Unstructured

    keras.utils.set_random_seed(0)
    make = {MLP: mlp, CNN: cnn}[network]
    if pattern == "dense":
        return make(keras.layers.Dense, width)
    if pattern == "block-sparse layers":
        layer = functools.partial(
            keras_es.layers.BlockSparseDense, sparsity=sparsity, block_size=32
        )
        return make(layer, width)
    units = {
        "weights": Unstructured(),
        "blocks of 4 inputs": Block(4, 1),
        "channels, compact": Channel(),
    }[pattern]
    plain = make(keras.layers.Dense, width)
    stays = [
        layer.name
        for layer in plain.layers
        if layer.name in ("first", "logits") or layer.name.startswith("depthwise")
    ]
    model = keras_es.sparsify(plain, sparsity, pattern=units, exclude=stays)
    if pattern == "channels, compact":
        return keras_es.strip_masks(model, compact=True)
    return model


def mlp(hidden, width=512):
    """Three hidden layers, inputs as many as units, ten classes."""
    import keras

    return keras.Sequential(
        [
            keras.Input((width,)),
            *(hidden(width, activation="relu") for _ in range(3)),
            keras.layers.Dense(10, name="logits"),
        ]
    )


def cnn(hidden, width=512):
    """Depthwise and 1 x 1 convolutions in the form that XNNPACK's sparse path wants.

    A first 3 x 3 convolution of stride 2 with a border of 1, then only 3 x 3 depthwise
    and 1 x 1 convolutions up to the mean over the image.
    """
    import keras
    from keras import layers

    x = inputs = keras.Input((96, 96, 3))
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(32, 3, 2, activation="relu", name="first")(x)
    for i, channels in enumerate((width // 8, width // 4, width // 2, width // 2)):
        x = layers.DepthwiseConv2D(
            3, padding="same", activation="relu", name=f"depthwise_{i}"
        )(x)
        x = layers.Conv2D(channels, 1, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))
