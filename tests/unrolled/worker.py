"""What each worker of test_replicas.py runs; alone, it is the process to equal."""

import os

import keras
import tensorflow as tf

from keras_es import unrolled
from keras_es.distribution import strategies
from tests.unrolled.common import Powers


def main():
    """Train for three windows; print loss and weight."""
    if os.environ.get("UNROLLED_ALONE"):
        del os.environ["TF_CONFIG"]
        strategy = tf.distribute.get_strategy()
    else:
        strategy = strategies.make("multi_worker")
    with strategy.scope():
        model = unrolled.UnrolledModel(Powers(noisy=True))
        model.compile(
            unrolled.NRES(
                keras.optimizers.SGD(0.001), particles=6, unroll_length=2, sigma=0.1
            )
        )
    history = model.fit(steps_per_epoch=3, verbose=0).history
    print(history["loss"][-1], float(model.task.weight.numpy()))


if __name__ == "__main__":
    main()
