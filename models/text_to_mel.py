"""Text to log-mel frames: characters, their durations, frames; small enough for a CPU.

Durations are learned without anybody's labels. Each character predicts a mean frame
μ_j from its neighbourhood; the monotonic path of characters through frames that fits
those best,

    a = argmin_a  Σ_t ( mean_m (y_tm − μ_{a(t)m})² + λ (a(t)/J − t/T)² ),
    a(1) = 1, a(T) = J, a(t+1) − a(t) ∈ {0, 1},

is found by dynamic programming in every step, as in Glow-TTS (without its flow), and
μ learns on it: hidden Markov models are trained by Viterbi's path in the same way. At
first all μ_j are alike, and the second term divides the time evenly. A decoder makes
frames of the characters' vectors, each repeated for as long as its path stays, and a
predictor learns how long that is. To speak, its durations take the place of the path.

References:
    Kim et al. 2020, Glow-TTS, arXiv 2005.11129. Ren et al. 2019, FastSpeech,
    arXiv 1905.09263 (durations and repetition).
"""

import keras
import tensorflow as tf
from keras import layers

from keras_es._arguments import is_number
from models.monotonic_path import best_path

CENTER, SCALE = -6.0, 3.0
"""Log-mel frames y stand as (y - CENTER) / SCALE inside of the model."""

SPEEDS = 0.1, 10.0
"""The least and the most times as fast as in training that is spoken."""

SPACES = "".join(c for c in map(chr, range(0x3001)) if c.isspace())
"""What Python splits words at; TensorFlow knows six of them."""

DENSE_LAYERS = ("prior", "duration", "spread", "frame")
"""Sublayers that stay dense: few weights, or rows that few blocks divide."""

COLUMNS = ("loss", "mel_error", "path_error", "duration_error")
"""What the model returns of each utterance in training."""


@keras.saving.register_keras_serializable(package="keras_es_models")
class TextToMel(layers.Layer):
    """Characters to frames, and what training says of them.

    Args:
        characters: Those that are known; number i of a text is `characters[i - 1]`.
        speakers: Names of the speakers.
        sample_rate: Of the audio whose frames are learned.
        units: Width of all layers.
        depth: Convolutions in encoder and decoder each.
    """

    def __init__(self, characters, speakers, sample_rate, units=128, depth=3, **kwargs):
        super().__init__(**kwargs)
        self.characters, self.speakers = characters, list(speakers)
        self.sample_rate, self.units, self.depth = sample_rate, units, depth
        self.symbols = layers.Embedding(len(characters) + 1, units, name="symbols")
        self.voices = layers.Embedding(len(self.speakers), units, name="voices")
        self.encoder = [Residual(units, name=f"encoder_{i}") for i in range(depth)]
        self.prior = layers.Dense(80, name="prior")
        self.pace = layers.Dense(units, activation="relu", name="pace")
        self.duration = layers.Dense(1, name="duration")
        self.spread = layers.Dense(units, name="spread")
        self.decoder = [Residual(units, name=f"decoder_{i}") for i in range(depth)]
        self.frame = layers.Dense(80, name="frame")

    def build(self, input_shape):
        """Build all layers."""
        vectors = (None, None, self.units)
        self.symbols.build((None, None))
        self.voices.build((None, 1))
        for layer in (*self.encoder, self.prior, self.pace, self.duration):
            layer.build(vectors)
        self.spread.build((None, None, self.units + 3))
        for layer in (*self.decoder, self.frame):
            layer.build(vectors)
        self.built = True

    def call(self, inputs):
        """Return [batch, 4], what `COLUMNS` names.

        Args:
            inputs: Dict of `tokens` [batch, J], `speaker` [batch, 1], `mel`
                [batch, T, 80] and `frames` [batch, 1], see
                `keras_es.datasets.audio.sentences.Sentences`.
        """
        tokens, frames = inputs["tokens"], inputs["frames"]
        mel = (tf.cast(inputs["mel"], self.compute_dtype) - CENTER) / SCALE
        hidden = self.encode(tokens, inputs["speaker"])
        means = self.prior(hidden)
        known = tf.cast(tokens > 0, hidden.dtype)
        counts = tf.reduce_sum(tf.cast(tokens > 0, tf.int32), axis=1)
        path = best_path(tf.stop_gradient(_costs(mel, means)), counts, frames[:, 0])
        said = tf.sequence_mask(frames[:, 0], tf.shape(mel)[1], hidden.dtype)
        steps = tf.one_hot(path, tf.shape(tokens)[1], dtype=hidden.dtype)
        durations = tf.reduce_sum(steps * said[..., None], axis=1)
        found = self.decode(hidden, path, durations, said)
        along = tf.gather(means, path, batch_dims=1)
        predicted = self.log_durations(hidden)
        late = tf.square(predicted - tf.math.log(tf.maximum(durations, 1.0)))
        mel_error = _mean(tf.reduce_mean(tf.abs(found - mel), axis=-1), said)
        path_error = _mean(tf.reduce_mean(tf.square(along - mel), axis=-1), said)
        duration_error = _mean(late, known)
        loss = mel_error + path_error + 0.1 * duration_error
        parts = [loss, SCALE * mel_error, path_error, duration_error]
        return tf.stack(parts, axis=-1)

    def encode(self, tokens, speaker):
        """Return a vector for each character, [batch, J, units]."""
        known = tf.cast(tokens > 0, self.compute_dtype)[..., None]
        hidden = self.symbols(tokens) + self.voices(speaker)
        for layer in self.encoder:
            hidden = layer(hidden * known)
        return hidden * known

    def log_durations(self, hidden):
        """Return the logarithm of the frames of each character, [batch, J].

        What it learns is kept from the encoder, whose vectors are to say what is said.
        """
        return self.duration(self.pace(tf.stop_gradient(hidden)))[..., 0]

    def decode(self, hidden, path, durations, said):
        """Return frames, [batch, T, 80].

        Args:
            hidden: [batch, J, units].
            path: int32 [batch, T], the character of each frame.
            durations: [batch, J], frames of each character.
            said: [batch, T], 1 for frames and 0 for what fills up.
        """
        before = tf.cumsum(durations, axis=1, exclusive=True)
        lasts = tf.gather(durations, path, batch_dims=1)
        place = tf.cast(tf.range(tf.shape(path)[1]), hidden.dtype)
        place = place + 0.5 - tf.gather(before, path, batch_dims=1)
        share = place / tf.maximum(lasts, 1.0)
        where = tf.stack([share, 1.0 - share, tf.math.log1p(lasts)], axis=-1)
        repeated = tf.gather(hidden, path, batch_dims=1)
        x = self.spread(tf.concat([repeated, where], axis=-1)) * said[..., None]
        for layer in self.decoder:
            x = layer(x) * said[..., None]
        return self.frame(x)

    def speak(self, texts, speaker=None, speed=1.0):
        """Return the frames of texts.

        Args:
            texts: List of texts of known characters.
            speaker: Name of a speaker; None for the first.
            speed: How fast, in [0.1, 10]; 1 as in training.

        Returns:
            A list of float32 arrays [frames, 80], as
            `keras_es.datasets.audio.mel_spectrogram` returns them.

        Raises:
            ValueError: If a text has unknown characters, there is no such speaker, or
                `speed` is no such number.
        """
        from keras_es.datasets.audio.sentences import encode

        listed = isinstance(texts, list | tuple) and len(texts) > 0
        if not listed or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected a list of texts. Received: texts={texts!r}")
        speaker = self.speakers[0] if speaker is None else speaker
        if speaker not in self.speakers:
            raise ValueError(
                f"expected a speaker of {self.speakers}. Received: speaker={speaker!r}"
            )
        least, most = SPEEDS
        if not is_number(speed) or not least <= speed <= most:
            raise ValueError(
                f"`speed` must be a number in [{least}, {most}]. "
                f"Received: speed={speed!r}"
            )
        speed = float(speed)
        voice = self.speakers.index(speaker)
        tokens = [encode(text, self.characters) for text in texts]
        return [self.frames_of(tf.constant(t), voice, speed).numpy() for t in tokens]

    def frames_of(self, tokens, voice, speed):
        """Return the frames of a text, float32 [frames, 80].

        Args:
            tokens: int32 [J], numbers of characters from 1 on.
            voice: Number of a speaker.
            speed: As in `speak`.
        """
        hidden = self.encode(tokens[None], tf.reshape(voice, [1, 1]))
        wanted = tf.exp(self.log_durations(hidden)[0]) / speed
        durations = tf.maximum(tf.cast(tf.round(wanted), tf.int32), 1)
        path = tf.repeat(tf.range(tf.size(tokens)), durations)[None]
        said = tf.ones(tf.shape(path), hidden.dtype)
        lasts = tf.cast(durations, hidden.dtype)[None]
        mel = self.decode(hidden, path, lasts, said)[0]
        return tf.cast(mel * SCALE + CENTER, tf.float32)

    def tokens_of(self, text):
        """Return what `keras_es.datasets.audio.sentences.encode` does, as a graph.

        Args:
            text: Scalar string in UTF-8.

        Raises:
            tf.errors.InvalidArgumentError: If it is empty or has unknown characters.
        """
        lower = tf.strings.lower(text, "utf-8")
        lower = tf.strings.regex_replace(lower, f"[{SPACES}]+", " ")
        words = tf.strings.strip(lower)
        symbols = tf.strings.unicode_split(tf.strings.join([" ", words, " "]), "UTF-8")
        same = symbols[:, None] == tf.constant(list(self.characters))[None]
        fits = tf.reduce_all(tf.reduce_any(same, 1)) & (words != "")
        expected = f"expected a text of the characters {self.characters.strip()!r}"
        with tf.control_dependencies([tf.debugging.Assert(fits, [expected, text])]):
            return tf.argmax(same, 1, tf.int32) + 1

    def number_of(self, speaker):
        """Return the number of a speaker's name, a scalar string; "" is the first.

        Raises:
            tf.errors.InvalidArgumentError: If there is no such speaker.
        """
        same = tf.constant(self.speakers) == speaker
        known = tf.reduce_any(same) | (speaker == "")
        expected = f"expected a speaker of {self.speakers}"
        with tf.control_dependencies([tf.debugging.Assert(known, [expected, speaker])]):
            return tf.argmax(same, output_type=tf.int32)

    def get_config(self):
        return super().get_config() | {
            "characters": self.characters,
            "speakers": list(self.speakers),
            "sample_rate": self.sample_rate,
            "units": self.units,
            "depth": self.depth,
        }


@keras.saving.register_keras_serializable(package="keras_es_models")
class Residual(layers.Layer):
    """x + relu(convolution of normalized x), over five neighbours.

    Args:
        units: Width.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.norm = layers.LayerNormalization(name="norm")
        self.convolution = layers.Conv1D(
            units, 5, padding="same", activation="relu", name="convolution"
        )

    def build(self, input_shape):
        self.norm.build(input_shape)
        self.convolution.build(input_shape)
        self.built = True

    def call(self, x):
        return x + self.convolution(self.norm(x))

    def get_config(self):
        return super().get_config() | {"units": self.units}


def _costs(mel, means):
    """Return mean_m (y_tm - μ_jm)² of each frame and character, [batch, T, J]."""
    products = tf.matmul(mel, means, transpose_b=True)
    squares = tf.reduce_sum(tf.square(mel), -1)[..., None]
    squares += tf.reduce_sum(tf.square(means), -1)[:, None]
    return (squares - 2.0 * products) / mel.shape[-1]


def _mean(values, weights):
    """Return the weighted mean of each row."""
    return tf.reduce_sum(values * weights, 1) / tf.reduce_sum(weights, 1)


@keras.saving.register_keras_serializable(package="keras_es_models")
def text_to_mel_loss(y_true, y_pred):
    """Return the loss of each utterance."""
    return y_pred[:, 0]


@keras.saving.register_keras_serializable(package="keras_es_models")
def mel_error(y_true, y_pred):
    """Return the mean absolute difference of log-mel frames, in nepers."""
    return y_pred[:, 1]


@keras.saving.register_keras_serializable(package="keras_es_models")
def duration_error(y_true, y_pred):
    """Return the mean squared difference of logarithms of durations."""
    return y_pred[:, 3]


def compile_arguments():
    """Return loss and metrics for `compile`."""
    return {"loss": text_to_mel_loss, "metrics": [mel_error, duration_error]}


def build(characters, speakers, sample_rate, units=128, depth=3):
    """Return the model that is trained; see `TextToMel` for the arguments.

    Its inputs are those of `TextToMel.call`, its output is a row for each utterance.
    """
    shapes = {
        "tokens": ((None,), "int32"),
        "speaker": ((1,), "int32"),
        "mel": ((None, 80), "float32"),
        "frames": ((1,), "int32"),
    }
    inputs = {
        name: keras.Input(shape, dtype=dtype, name=name)
        for name, (shape, dtype) in shapes.items()
    }
    layer = TextToMel(
        characters, speakers, sample_rate, units, depth, name="text_to_mel"
    )
    return keras.Model(inputs, layer(inputs), name="text_to_mel")
