"""The only room that touches private names of Keras and TensorFlow."""

from keras_es._compat.adapters import *  # noqa: F403
from keras_es._compat.copies import *  # noqa: F403
from keras_es._compat.graphs import *  # noqa: F403
from keras_es._compat.host import *  # noqa: F403
from keras_es._compat.optimizers import *  # noqa: F403
from keras_es._compat.own_steps import *  # noqa: F403
from keras_es._compat.quantizing import *  # noqa: F403
from keras_es._compat.tangents import *  # noqa: F403
from keras_es._compat.xla import *  # noqa: F403
