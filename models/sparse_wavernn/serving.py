"""A voice as a SavedModel, which needs TensorFlow alone and keeps its state."""

import tensorflow as tf

from models.sparse_wavernn.network import CONTEXT


class Voice(tf.Module):
    """What is saved: `vocode`, the signature of the same name.

    It goes on where the last call ended, so that sound can be made piece by piece; a
    call with `first` begins anew.

    Args:
        generator: `Generator`.
    """

    def __init__(self, generator):
        super().__init__()
        self.program = generator.program
        voices, mels = generator.voices, generator.mels
        self.sample_state = tf.nest.map_structure(
            lambda value: tf.Variable(value, trainable=False), self.program.start()
        )
        self.recent = tf.Variable(
            tf.zeros([voices, 0, mels]),
            shape=[voices, None, mels],
            trainable=False,
        )
        flag = tf.TensorSpec([], tf.bool)
        numbers = {
            "seed": tf.TensorSpec([], tf.int64),
            "utterances": tf.TensorSpec([voices], tf.int64),
        }
        self.vocode = tf.function(
            self._vocode,
            autograph=False,
            input_signature=[
                tf.TensorSpec([voices, None, mels], name="mel"),
                *_named(numbers | {"first": flag, "last": flag}),
            ],
        )

    def _vocode(self, mel, seed, utterances, first, last):
        """Return {"samples": int16 [voices, n]}, of frames that CONTEXT others follow.

        Args:
            mel: [voices, frames, mels], the frames that follow.
            seed: See `Generator`.
            utterances: See `Generator`.
            first: Whether these are the first ones.
            last: Whether no others come, so that all samples are told.
        """
        before = tf.cond(
            first,
            lambda: tf.repeat(mel[:, :1], CONTEXT, axis=1),
            lambda: tf.identity(self.recent),
        )
        frames = tf.concat([before, mel], axis=1)
        after = tf.repeat(frames[:, -1:], CONTEXT, axis=1)
        frames = tf.cond(last, lambda: tf.concat([frames, after], 1), lambda: frames)
        state = tf.nest.map_structure(
            lambda start, own: tf.where(first, start, own),
            self.program.start(),
            self.sample_state,
        )
        ready = tf.maximum(tf.shape(frames)[1] - 2 * CONTEXT, 0)
        samples, state = self._spoken(frames, ready, seed, utterances, state)
        tf.nest.map_structure(lambda v, new: v.assign(new), self.sample_state, state)
        self.recent.assign(frames[:, ready:])
        return {"samples": tf.cast(samples, tf.int16)}

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


def export(generator, folder):
    """Write a voice as a SavedModel, whose state is that of its process.

    Args:
        generator: `Generator`.
        folder: Where it is written.
    """
    voice = Voice(generator)
    tf.saved_model.save(voice, str(folder), signatures={"vocode": voice.vocode})
