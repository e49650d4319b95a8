"""The loop that speaks: frames in, samples out, compiled as one program."""

import numpy as np
import tensorflow as tf

from models.sparse_wavernn import sampling
from models.sparse_wavernn.bits import SILENCE, join, scaled, split
from models.sparse_wavernn.layers import (
    MEL_MEAN,
    MEL_SCALE,
    REACH,
    dense_kernel,
    upsampling,
)

NEAR = 2 * REACH + 1
"""Frames that one of the conditioning network looks at."""


class Program(tf.Module):
    """Makes the samples of some frames, with a state that goes from call to call.

    Everything hangs on one frame of one voice only, whatever else a call has: each is a
    turn of a loop that does the same. So no division of frames among calls changes a
    bit. Values of voices lie side by side, units [n, voices], or [n] of a single one.

    Args:
        weights: Dict of NumPy arrays, as `extract` returns it.
        hop: Samples of a frame.
        frames: Most frames of a call.
        voices: Utterances that are spoken at once.
        make_product: Function (name, W) -> product with W.
        log_probabilities: Whether ln p(c) and ln p(f) of what is drawn are returned.
    """

    def __init__(self, weights, hop, frames, voices, make_product, log_probabilities):
        super().__init__()
        self.hop, self.frames, self.voices = hop, frames, voices
        self.log_probabilities = log_probabilities
        self.units = len(weights["R"])
        self.products = {
            name: make_product(name, weights[name])
            for name in ("R", "O1", "O2", "O3", "O4")
        }
        self.values = {
            name: tf.Variable(value, trainable=False)
            for name, value in weights.items()
            if name not in self.products
        }
        self.weights_of_frames = tf.Variable(upsampling(hop), trainable=False)
        floats, mels = tf.float32, weights["window"].shape[0] // NEAR
        self.speak = tf.function(
            self._speak,
            jit_compile=True,
            autograph=False,
            input_signature=[
                tf.TensorSpec([voices, frames + 2 * REACH + 2, mels], floats),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.int64),
                tf.TensorSpec([voices], tf.int64),
                {
                    "hidden": tf.TensorSpec([self.units, *self.tail], floats),
                    "before": tf.TensorSpec(self.tail, tf.int32),
                    "position": tf.TensorSpec([], tf.int64),
                },
            ],
        )

    @property
    def tail(self):
        """Last axis of what each voice has of its own."""
        return [] if self.voices == 1 else [self.voices]

    def start(self):
        """Return the state before the first sample."""
        return {
            "hidden": tf.zeros([self.units, *self.tail]),
            "before": tf.fill(self.tail, SILENCE),
            "position": tf.zeros([], tf.int64),
        }

    def _speak(self, mel, count, seed, utterances, state):
        """Return (samples, log-probabilities or None, the state after them).

        Args:
            mel: [voices, frames + 2 * CONTEXT, mels], of which the first `count` are
                spoken.
            count: int32, at most `frames`.
            seed: int64.
            utterances: int64 [voices], which one each voice is.
            state: What `start` or the last call returned.
        """
        place = sampling.position(seed, utterances)
        length = self.frames * self.hop
        found = tf.TensorArray(tf.int32, length, element_shape=self.tail)
        logs = tf.TensorArray(tf.float32, length, element_shape=[2, *self.tail])

        def frame(i, hidden, before, found, logs):
            near = [self.voices, NEAR + 2, mel.shape[-1]]
            said = self._said(tf.slice(mel, [0, i, 0], near))
            first = state["position"] + tf.cast(i * self.hop, tf.int64)
            numbers = sampling.uniforms(first, self.hop, place)
            numbers = tf.reshape(numbers, [self.hop, 2, *self.tail])

            def sample(s, hidden, before, found, logs):
                share = self.weights_of_frames[s]
                x = share[0] * said[0] + share[1] * said[1] + share[2] * said[2]
                hidden, before, ln_p = self._step(hidden, before, x, numbers[s])
                at = i * self.hop + s
                if ln_p is not None:
                    logs = logs.write(at, ln_p)
                return s + 1, hidden, before, found.write(at, before), logs

            return i + 1, *_loop(self.hop, sample, hidden, before, found, logs)

        begin = (state["hidden"], state["before"], found, logs)
        hidden, before, found, logs = _loop(count, frame, *begin)
        position = state["position"] + tf.cast(count * self.hop, tf.int64)
        state = {"hidden": hidden, "before": before, "position": position}
        logs = logs.stack() if self.log_probabilities else tf.zeros([0])
        return found.stack(), logs, state

    def _said(self, near):
        """Return what three frames add to the gates, [3, 3 * units, voices].

        Args:
            near: [voices, NEAR + 2, mels], from REACH before the first of them on.
        """
        near, v = (near - MEL_MEAN) / MEL_SCALE, self.values
        windows = [
            tf.reshape(near[:, i : i + NEAR], [self.voices, -1]) for i in range(3)
        ]
        windows = tf.concat(windows, axis=0)
        hidden = tf.nn.relu(tf.matmul(windows, v["window"]) + v["window_bias"])
        hidden = tf.nn.relu(tf.matmul(hidden, v["mix"]) + v["mix_bias"])
        said = tf.matmul(hidden, v["gates"]) + v["bias"]
        said = tf.reshape(said, [3, self.voices, 3 * self.units])
        return said[:, 0] if self.voices == 1 else tf.transpose(said, [0, 2, 1])

    def _step(self, hidden, before, x, numbers):
        """Return the hidden state after one sample, the sample, and its ln p or None.

        Args:
            hidden: [units, voices].
            before: int32 [voices], the sample before.
            x: [3 * units, voices], what the frames add.
            numbers: [2, voices], random, in [0, 1).
        """
        half = [3, 2, self.units // 2, *self.tail]
        coarse, fine = split(before)
        x = x + self._times("from_coarse", coarse)
        x = x + self._times("from_fine", fine)
        x, h = tf.reshape(x, half), tf.reshape(hidden, half[1:])
        product = tf.reshape(self.products["R"](hidden), half)

        def new(i, x):
            u = tf.sigmoid(product[0, i] + x[0])
            r = tf.sigmoid(product[1, i] + x[1])
            return u * h[i] + (1.0 - u) * tf.tanh(r * product[2, i] + x[2])

        def told(h, first, second, number):
            inner = tf.nn.relu(self._layer(first, h))
            return sampling.draw(self._layer(second, inner), number)

        h_c = new(0, x[:, 0])
        coarse, p_c = told(h_c, "O1", "O2", numbers[0])
        now = tf.reshape(self._times("now_coarse", coarse), [3, *half[2:]])
        h_f = new(1, x[:, 1] + now)
        fine, p_f = told(h_f, "O3", "O4", numbers[1])
        ln_p = None
        if self.log_probabilities:
            ln_p = tf.stack([_ln_of(coarse, p_c), _ln_of(fine, p_f)])
        return tf.concat([h_c, h_f], axis=0), join(coarse, fine), ln_p

    def _times(self, name, bits):
        """Return a column of I times 8 bits, scaled to [-1, 1]."""
        return self._across(self.values[name]) * scaled(bits)

    def _layer(self, name, h):
        return self.products[name](h) + self._across(self.values[name + "_bias"])

    def _across(self, vector):
        return vector if self.voices == 1 else vector[:, None]


def _loop(count, body, *state):
    """Call (i, *state) -> (i + 1, *state) for i = 0 ... count - 1."""
    return tf.while_loop(lambda i, *_: i < count, body, (tf.constant(0), *state))[1:]


def _ln_of(value, weights):
    """Return ln of the share of a value in its weights."""
    index = tf.reshape(tf.range(256), [256] + [1] * (weights.shape.rank - 1))
    own = tf.reduce_sum(tf.where(index == value, weights, 0.0), axis=0)
    return tf.math.log(own / tf.reduce_sum(weights, axis=0))


def extract(model):
    """Return the effective weights of a `SparseWaveRNN`, as `Program` takes them.

    Args:
        model: The model, with masks, blocks or neither.
    """
    cell, inputs = model.get_layer("wavernn").cell, model.get_layer("inputs")
    net = model.get_layer("conditioning")
    first, second, now = np.asarray(inputs.input_kernel(), "float32")
    half = len(now) // 6
    found = {
        "R": cell.recurrent_kernel(),
        "bias": inputs.bias,
        "from_coarse": first,
        "from_fine": second,
        "now_coarse": now.reshape(3, 2, half)[:, 1].ravel(),
        "gates": net.gates.kernel,
        "window": net.window.kernel,
        "window_bias": net.window.bias,
        "mix": net.mix.kernel,
        "mix_bias": net.mix.bias,
    }
    for name in ("O1", "O2", "O3", "O4"):
        layer = model.get_layer(name)
        found |= {name: dense_kernel(layer), f"{name}_bias": layer.bias}
    return {name: np.asarray(value, "float32") for name, value in found.items()}
