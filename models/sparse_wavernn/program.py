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
from models.sparse_wavernn.products import Apart

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
        self.units, self.apart = len(weights["R"]), Apart()
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

            def between(s):
                share = self.weights_of_frames[tf.minimum(s, self.hop - 1)]
                return share[0] * said[0] + share[1] * said[1] + share[2] * said[2]

            def sample(s, x, hidden, before, found, logs):
                # One branch, and no more than eight operations beside others in each:
                # so many XLA runs one after the other, without a queue.
                hidden, before, ln_p = self.apart(
                    self._step, hidden, before, x, numbers[s]
                )
                at = i * self.hop + s
                if self.log_probabilities:
                    logs = logs.write(at, ln_p)
                found = found.write(at, before)
                # What is said of the next sample is made here, and not where it is
                # used: with it XLA finds no vector instructions for the gates.
                return s + 1, between(s + 1), hidden, before, found, logs

            begin = (between(0), hidden, before, found, logs)
            return i + 1, *_loop(self.hop, sample, *begin)[1:]

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

        def new(i, *more):
            """Return a half of the hidden state."""
            now = x
            for name, bits in zip(("from_coarse", "from_fine", "now_coarse"), more):
                now = now + self._times(name, bits)
            r_u, r_r, r_e = tf.unstack(tf.reshape(product, half)[:, i])
            now = tf.reshape(now, half)[:, i]
            u, r = tf.sigmoid(r_u + now[0]), tf.sigmoid(r_r + now[1])
            old = tf.reshape(hidden, half[1:])[i]
            return u * old + (1.0 - u) * tf.tanh(r * r_e + now[2])

        def told(i, first, second, *bits):
            """Return a half of the hidden state, its 8 bits and what each weighs."""
            h = new(i, *bits)
            logits = self.apart(self._logits, h, first, second)
            return h, *sampling.draw(logits, numbers[i], self.apart)

        product = self.products["R"](hidden)
        before = split(before)
        h_c, coarse, p_c = self.apart(told, 0, "O1", "O2", *before)
        h_f, fine, p_f = self.apart(told, 1, "O3", "O4", *before, coarse)
        ln_p = tf.zeros([0])
        if self.log_probabilities:
            ln_p = tf.stack([_ln_of(coarse, p_c), _ln_of(fine, p_f)])
        return tf.concat([h_c, h_f], axis=0), join(coarse, fine), ln_p

    def _logits(self, h, first, second):
        return self._layer(second, tf.nn.relu(self._layer(first, h)))

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
    found = {
        "R": cell.recurrent_kernel(),
        "bias": inputs.bias,
        "from_coarse": first,
        "from_fine": second,
        "now_coarse": now,
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
