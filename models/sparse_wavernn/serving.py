"""A voice as a SavedModel, which needs TensorFlow alone and keeps its state."""

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from models.sparse_wavernn.generator import Generator
from models.sparse_wavernn.network import CONTEXT
from models.text_to_mel import SPEEDS, TextToMel

SAVED = {"assets", "fingerprint.pb", "saved_model.pb", "variables"}
"""What TensorFlow writes into the folder of a SavedModel."""


class Voice(tf.Module):
    """What is saved: `vocode` and, with a model of text, `generate`.

    Both are signatures. They go on where the last call of either ended, so that sound
    can be made piece by piece, until one with `last`; a call with `first` begins anew,
    as the very first one does in any case.

    Args:
        generator: `Generator`.
        text_to_mel: None, or the layer `models.text_to_mel.TextToMel`.

    Raises:
        ValueError: If they are something else.
    """

    def __init__(self, generator, text_to_mel=None):
        if not isinstance(generator, Generator):
            raise ValueError(
                "`generator` must be a Generator, as Generator(model) makes it. "
                f"Received: generator={generator!r}"
            )
        if not isinstance(text_to_mel, TextToMel | None):
            raise ValueError(
                "`text_to_mel` must be the layer TextToMel of a model of text, as "
                'model.get_layer("text_to_mel") returns it. '
                f"Received: text_to_mel={text_to_mel!r}"
            )
        super().__init__()
        self.program = generator.program
        voices, mels = generator.voices, generator.mels
        self.sample_state = tf.nest.map_structure(
            lambda value: tf.Variable(value, trainable=False), self.program.start()
        )
        self.over = tf.Variable(False, trainable=False)
        # No frames until the first ones come, which are then repeated before them.
        self.recent = tf.Variable(
            tf.zeros([voices, 0, mels]),
            shape=[voices, None, mels],
            trainable=False,
        )
        numbers = {
            "seed": tf.TensorSpec([], tf.int64),
            "utterances": tf.TensorSpec([voices], tf.int64),
            "first": tf.TensorSpec([], tf.bool),
            "last": tf.TensorSpec([], tf.bool),
        }
        mel = tf.TensorSpec([voices, None, mels], name="mel")
        self.vocode = tf.function(
            self._vocode, autograph=False, input_signature=[mel, *_named(numbers)]
        )
        if text_to_mel is None:
            return
        # What it has is saved with the module; the layer itself is Keras's.
        self.weights_of_text = list(text_to_mel.variables)
        self._frames_of = _frames_of(text_to_mel)
        said = {
            "text": tf.TensorSpec([voices], tf.string),
            "speaker": tf.TensorSpec([voices], tf.string),
            "speed": tf.TensorSpec([], tf.float32),
        }
        self.generate = tf.function(
            self._generate, autograph=False, input_signature=_named(said | numbers)
        )

    @property
    def functions(self):
        """The signatures by name."""
        names = [name for name in ("vocode", "generate") if hasattr(self, name)]
        return {name: getattr(self, name) for name in names}

    def _generate(self, text, speaker, speed, seed, utterances, first, last):
        """Return {"samples": int16 [voices, n], "frames": int32 [voices]}.

        Args:
            text: Strings [voices] of characters that the model was trained with. The
                last frame of shorter ones is repeated until the longest ends.
            speaker: Names [voices]; "" for the first of the model.
            speed: In [0.1, 10]; 1 as in training.
            seed: See `vocode`, as are the others.

        Returns:
            The samples, and how many frames each text has.
        """
        found = [
            self._frames_of(text[i], speaker[i], speed)
            for i in range(self.program.voices)
        ]
        frames = tf.stack([tf.shape(mel)[0] for mel in found])
        longest = tf.reduce_max(frames)
        filled = [
            tf.gather(mel, tf.minimum(tf.range(longest), tf.shape(mel)[0] - 1))
            for mel in found
        ]
        said = self._vocode(tf.stack(filled), seed, utterances, first, last)
        return said | {"frames": frames}

    def _vocode(self, mel, seed, utterances, first, last):
        """Return {"samples": int16 [voices, n]}, of frames that CONTEXT others follow.

        Args:
            mel: [voices, frames, mels], finite, the frames that follow; none after
                `last`.
            seed: See `Generator`.
            utterances: See `Generator`.
            first: Whether these are the first ones.
            last: Whether no others come, so that all samples are told.
        """
        over = self.over & ~first
        checks = [
            tf.debugging.Assert(right, [f"expected {what}. Received:", value])
            for right, what, value in (
                (tf.reduce_all(tf.math.is_finite(mel)), "finite frames", mel),
                (seed >= 0, "a seed in [0, 2**63)", seed),
                (
                    tf.reduce_all(utterances >= 0),
                    "utterances in [0, 2**63)",
                    utterances,
                ),
                (
                    ~over | (tf.shape(mel)[1] == 0),
                    "no frames after `last`; with `first` others begin",
                    tf.shape(mel),
                ),
            )
        ]
        # What is wrong changes nothing: nothing is read or assigned before it is known.
        with tf.control_dependencies(checks):
            frames = self._followed(mel, first, last & ~over)
            state = tf.nest.map_structure(
                lambda start, own: tf.where(first, start, own),
                self.program.start(),
                self.sample_state,
            )
            ready = tf.maximum(tf.shape(frames)[1] - 2 * CONTEXT, 0)
            samples, state = self._spoken(frames, ready, seed, utterances, state)
            tf.nest.map_structure(
                lambda v, new: v.assign(new), self.sample_state, state
            )
            self.recent.assign(frames[:, ready:])
            self.over.assign(over | last)
        return {"samples": tf.cast(samples, tf.int16)}

    def _followed(self, mel, first, last):
        """Return the frames that were not yet spoken, those of now, and their context.

        The first frame of all, in whichever call it comes, is repeated before it, and
        with `last` the last one behind it.
        """
        recent = tf.cond(first, lambda: mel[:, :0], lambda: tf.identity(self.recent))
        begins = tf.shape(recent)[1] == 0
        before = tf.repeat(mel[:, :1], CONTEXT, axis=1)
        before = before[:, : tf.where(begins, CONTEXT, 0)]
        frames = tf.concat([recent, before, mel], axis=1)
        after = tf.repeat(frames[:, -1:], CONTEXT, axis=1)
        return tf.concat([frames, after[:, : tf.where(last, CONTEXT, 0)]], axis=1)

    def _spoken(self, frames, ready, seed, utterances, state):
        program = self.program
        size = program.frames
        frames = tf.pad(frames, [[0, 0], [0, size + 2 * CONTEXT], [0, 0]])
        turns = -(-ready // size)
        found = tf.TensorArray(
            tf.int32, turns, element_shape=[size * program.hop, *program.tail]
        )

        def turn(i, state, found):
            window = frames[:, i * size : i * size + size + 2 * CONTEXT]
            window = tf.ensure_shape(window, [program.voices, size + 2 * CONTEXT, None])
            count = tf.minimum(size, ready - i * size)
            samples, _, state = program.speak(window, count, seed, utterances, state)
            return i + 1, state, found.write(i, samples)

        _, state, found = tf.while_loop(
            lambda i, *_: i < turns, turn, (tf.constant(0), state, found)
        )
        samples = tf.reshape(found.stack(), [-1, program.voices])
        return tf.transpose(samples[: ready * program.hop]), state


def _named(specs):
    return [tf.TensorSpec(s.shape, s.dtype, name=n) for n, s in specs.items()]


def _frames_of(layer):
    """Return a function of a text, a speaker and a speed, in TensorFlow."""

    def frames_of(text, speaker, speed):
        least, most = SPEEDS
        fits = (speed >= least) & (speed <= most)
        expected = f"expected a speed in [{least}, {most}]. Received:"
        with tf.control_dependencies([tf.debugging.Assert(fits, [expected, speed])]):
            tokens = layer.tokens_of(text)
        return layer.frames_of(tokens, layer.number_of(speaker), speed)

    return frames_of


def export(generator, folder, text_to_mel=None):
    """Write a voice as a SavedModel, whose state is that of its process.

    Args:
        generator: `Generator`.
        folder: Where it is written.
        text_to_mel: None, or the layer that makes frames of texts, for `generate`.

    Raises:
        ValueError: If generator or layer are something else.
    """
    voice = Voice(generator, text_to_mel)
    tf.saved_model.save(voice, str(folder), signatures=voice.functions)


def is_voice(folder):
    """Tell whether a folder is what `export` writes, and nothing else is in it.

    Args:
        folder: Path of a folder that exists.
    """
    folder = Path(folder)
    if not {path.name for path in folder.iterdir()} <= SAVED:
        return False
    try:
        content = (folder / "saved_model.pb").read_bytes()
        saved = saved_model_pb2.SavedModel.FromString(content)
    except (FileNotFoundError, DecodeError):
        return False
    return any("vocode" in graph.signature_def for graph in saved.meta_graphs)
