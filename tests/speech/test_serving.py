"""A voice as a SavedModel, served by TensorFlow only; wav files in the making."""

import json
import subprocess
import sys
import wave

import numpy as np
import pytest

from models.sparse_wavernn import Generator, serving
from models.sparse_wavernn.wav import WavFile
from tests.speech.networks import MELS, masked

SCRIPT = """
import sys
import numpy as np
import tensorflow as tf
voice = tf.saved_model.load(sys.argv[1]).signatures["vocode"]
mel = np.load(sys.argv[2])
found = []
for first, last in ((0, 1), (1, 9), (9, 30), (30, 30)):
    said = voice(
        mel=tf.constant(mel[:, first:last]),
        seed=tf.constant(7, tf.int64),
        utterances=tf.constant([3], tf.int64),
        first=tf.constant(first == 0),
        last=tf.constant(first == 30),
    )
    found.append(said["samples"].numpy())
assert not any(n.partition(".")[0] in ("keras_es", "models") for n in sys.modules)
np.save(sys.argv[3], np.concatenate(found, axis=1))
"""


SPEAK = """
import json
import sys
import numpy as np
import tensorflow as tf
voice = tf.saved_model.load(sys.argv[1]).signatures["generate"]
texts, speaker, seed = json.loads(sys.argv[2])
def say(text, changes):
    given = {"text": [text], "speaker": [speaker], "speed": 1.0}
    numbers = {"seed": np.int64(seed), "utterances": np.int64([0])}
    place = {"first": text == texts[0], "last": text == texts[-1]}
    every = given | numbers | place | changes
    return voice(**{name: tf.constant(value) for name, value in every.items()})
found = [say(text, {})["samples"].numpy() for text in texts]
for wrong in ({"text": ["xyz"]}, {"speaker": ["he"]}, {"speed": 0.0}):
    try:
        say(texts[0], wrong)
    except tf.errors.InvalidArgumentError as error:
        assert "expected a" in str(error), error
    else:
        raise SystemExit(f"{wrong} was taken")
assert not any(n.partition(".")[0] in ("keras_es", "models") for n in sys.modules)
np.save(sys.argv[3], np.concatenate(found, axis=1))
"""


def serve(folder, place, texts, speaker, seed):
    """Return what another process makes of texts, a call each; one of TensorFlow."""
    said, path = json.dumps([texts, speaker, seed]), place / "samples.npy"
    command = [sys.executable, "-c", SPEAK, str(folder), said, str(path)]
    subprocess.run(command, check=True, cwd=place)
    return np.load(path)


@pytest.mark.slow
def test_a_saved_voice_goes_on_from_call_to_call(tmp_path):
    generator = Generator(masked(), blocks=True)
    mel = np.random.default_rng(0).normal(-5.0, 3.0, (1, 30, MELS)).astype("float32")
    serving.export(generator, tmp_path / "voice")
    np.save(tmp_path / "mel.npy", mel)
    paths = [tmp_path / "voice", tmp_path / "mel.npy", tmp_path / "samples.npy"]
    command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
    subprocess.run(command, check=True, cwd=tmp_path)
    np.testing.assert_array_equal(np.load(paths[-1]), generator(mel, 7, [3]))


def test_a_wav_file_can_be_read_at_any_time(tmp_path):
    path, samples = tmp_path / "a.wav", np.arange(-300, 300, dtype="int16")
    with WavFile(path, 8000) as file:
        for first, last in ((0, 0), (0, 250), (250, 600)):
            file.write(samples[first:last])
            with wave.open(str(path)) as read:
                assert read.getparams()[:4] == (1, 2, 8000, last)
                found = np.frombuffer(read.readframes(last), "<i2")
            np.testing.assert_array_equal(found, samples[:last])
    assert file.seconds == 600 / 8000
