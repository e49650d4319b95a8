"""From a plain model with dead channels to a smaller one."""

import keras

from keras_es.conversion.clone import clone
from keras_es.conversion.compact.analysis import LeftAlone, analyse


def compacted(model: keras.Model) -> tuple[keras.Model, list[LeftAlone]]:
    """Return a smaller model with the same outputs, and which layers stay.

    Args:
        model: A plain model, built. It is returned itself if nothing can go.
    """
    cuts, left_alone = analyse(model)
    return (clone(model, cuts) if cuts else model), left_alone
