"""What the report of compaction counts, and what it refuses."""

import keras
import pytest
from keras import layers

import keras_es
from keras_es.conversion.compact.counting import multiplications

LSTM = 4 * 4 * (6 + 4)
"""Multiplications of a step of four units that reads six numbers."""

COUNTED = {
    "lstm": (lambda: layers.LSTM(4), 3 * LSTM),
    "bidirectional": (lambda: layers.Bidirectional(layers.LSTM(4)), 2 * 3 * LSTM),
    "cell": (lambda: layers.RNN(layers.LSTMCell(4)), 3 * LSTM),
    "cells": (
        lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(2)]),
        3 * (LSTM + 3 * 2 * (4 + 2)),
    ),
    "dense at each step": (
        lambda: layers.TimeDistributed(layers.Dense(4)),
        3 * 6 * 4,
    ),
    "model at each step": (
        lambda: layers.TimeDistributed(
            keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Dense(2)])
        ),
        3 * (6 * 4 + 4 * 2),
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_multiplications_of_layers_in_layers(name):
    make, count = COUNTED[name]
    assert multiplications(keras.Sequential([keras.Input((3, 6)), make()])) == count


def test_multiplications_of_attention_in_groups():
    x, y = keras.Input((3, 6)), keras.Input((5, 6))
    layer = layers.GroupQueryAttention(2, num_query_heads=4, num_key_value_heads=2)
    projections = 2 * 3 * 6 * 8 + 2 * 5 * 6 * 4  # queries and outputs, keys and values
    scores_and_sums = 2 * 3 * 5 * 8
    assert multiplications(keras.Model([x, y], layer(x, y))) == (
        projections + scores_and_sums
    )


@pytest.mark.parametrize("latency", [1, None, "12"])
def test_latency_is_a_list(latency):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    with pytest.raises(ValueError, match=r"must be a list of batch sizes.*Received: "):
        keras_es.compaction_report(model, latency=latency)


def test_texts_are_timed():
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            layers.StringLookup(vocabulary=["a", "b"]),
            layers.Embedding(4, 6),
        ]
    )
    assert keras_es.compaction_report(model, latency=[2], rounds=1).before["latency_2"]
