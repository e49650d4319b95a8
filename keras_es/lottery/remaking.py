"""The model of a ticket made again from its config, and what such configs agree in."""

import contextlib
import json
import random as python_random

import keras

from keras_es.lottery import masking


def made(config):
    """Return the model of a ticket's config, with the names that its layers had."""
    config = json.loads(json.dumps(config))  # Keras changes a config that it reads.
    names = config.pop("layer_names", ())  # not in files of before
    model = keras.saving.deserialize_keras_object(config)
    masking.rename(model, names)
    return model


def anonymous(config):
    """Return a model's config as JSON with its names numbered, and without seeds.

    Two builds of one network have the same, whatever Keras counts up in between.
    """
    config = json.loads(json.dumps(config))
    left_out = ("layer_names", "compile_config", "shared_object_id", "seed")
    numbers: dict[str, str] = {}

    def names(part):
        if isinstance(part, dict):
            if isinstance(part.get("name"), str):
                numbers.setdefault(part["name"], f"name {len(numbers)}")
            part = list(part.values())
        for value in part if isinstance(part, list) else ():
            names(value)

    def numbered(part):
        if isinstance(part, dict):
            return {k: numbered(v) for k, v in part.items() if k not in left_out}
        if isinstance(part, list):
            return [numbered(value) for value in part]
        return numbers.get(part, part) if isinstance(part, str) else part

    names(config)
    return json.dumps(numbered(config), sort_keys=True)


@contextlib.contextmanager
def seeds_from(text):
    """Let what has no seed have one by a text: initializers, and Dropout.

    Keras draws these seeds by Python's generator, which is left as it was.
    """
    state = python_random.getstate()
    python_random.seed(text)
    try:
        yield
    finally:
        python_random.setstate(state)
