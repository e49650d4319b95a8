"""A voice as a SavedModel, served by TensorFlow only; wav files in the making."""

import json
import subprocess
import sys
import wave

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_es.runs.errors import RunError
from models.sparse_wavernn import Generator, outputs, serving
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
speeds = [{"speed": speed} for speed in (0.0, 1e-30, float("inf"))]
for wrong in ({"text": ["xyz"]}, {"speaker": ["he"]}, *speeds):
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


@pytest.fixture(scope="module")
def voice():
    """A voice that is saved as it is, and the generator whose samples it has."""
    generator = Generator(masked())
    return generator, serving.Voice(generator)


def spoken(voice, pieces, first=True, last=True, seed=7, utterance=3):
    """Return the samples of pieces of frames, a call each."""
    numbers = (tf.constant(seed, tf.int64), tf.constant([utterance], tf.int64))
    found = []
    for i, mel in enumerate(pieces):
        place = (first and i == 0, last and i == len(pieces) - 1)
        said = voice.vocode(tf.constant(mel), *numbers, *map(tf.constant, place))
        found.append(said["samples"].numpy())
    return np.concatenate(found, axis=1)


def test_calls_are_the_whole_to_the_bit_in_any_cut(voice):
    """With calls of no frames too, and without `first` where nothing was before."""
    generator, saved = voice
    mel = np.random.default_rng(1).normal(-5.0, 3.0, (1, 8, MELS)).astype("float32")
    whole = generator(mel, 7, [3])
    np.testing.assert_array_equal(spoken(saved, [mel], first=False), whole)
    for ends in ([8], [0, 8], [0, 0, 1, 1, 8], [1, 4, 8, 8], [7, 8]):
        pieces = [mel[:, a:b] for a, b in zip([0, *ends], ends)]
        np.testing.assert_array_equal(spoken(saved, pieces), whole)
    # It is over: nothing is told twice, and what comes without `first` is refused.
    for _ in range(2):
        assert spoken(saved, [mel[:, :0]], first=False).shape == (1, 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no frames after `last`"):
        spoken(saved, [mel], first=False)
    assert spoken(saved, [mel[:, :0]]).shape == (1, 0)
    np.testing.assert_array_equal(spoken(saved, [mel]), whole)


def test_what_cannot_be_spoken_changes_nothing(voice):
    generator, saved = voice
    mel = np.random.default_rng(2).normal(-5.0, 3.0, (1, 8, MELS)).astype("float32")
    begun = spoken(saved, [mel[:, :5]], last=False)
    for wrong, message in (
        ({"mel": np.where(mel > -5, np.inf, mel)}, "expected finite frames"),
        ({"mel": np.where(mel > -5, np.nan, mel)}, "expected finite frames"),
        ({"seed": -1}, "expected a seed in"),
        ({"utterance": -1}, "expected utterances in"),
    ):
        given = {"mel": mel, **wrong}
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            spoken(saved, [given.pop("mel")], **given)
    rest = spoken(saved, [mel[:, 5:]], first=False)
    whole = np.concatenate([begun, rest], axis=1)
    np.testing.assert_array_equal(whole, generator(mel, 7, [3]))


def test_a_voice_takes_a_generator_and_a_layer(voice, tmp_path):
    generator, model = voice[0], keras.Sequential()
    for given, message in (
        ((model,), "`generator` must be a Generator, as .*Received: generator="),
        ((generator, model), "the layer TextToMel .*Received: text_to_mel=<Sequential"),
    ):
        with pytest.raises(ValueError, match=message):
            serving.export(given[0], tmp_path / "voice", *given[1:])
    assert not list(tmp_path.iterdir())


def test_only_a_voice_is_replaced_by_one(tmp_path):
    """Any other folder, also of another SavedModel, keeps what is in it."""
    voice, other = tmp_path / "voice", tmp_path / "other"
    for folder, name in ((voice, "vocode"), (other, "serve")):
        module = tf.Module()
        module.call = tf.function(lambda x: {"x": x}, [tf.TensorSpec([])])
        tf.saved_model.save(module, str(folder), signatures={name: module.call})
    assert outputs.check_folder(voice) == voice.resolve()
    for new in (tmp_path / "new", tmp_path / "empty"):
        assert outputs.check_folder(new) == new.resolve()
        (tmp_path / "empty").mkdir(exist_ok=True)
    (voice / "thesis.txt").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"no such thing")
    (tmp_path / "file").touch()
    for name in ("voice", "other", "broken", "file"):
        with pytest.raises(RunError, match=f"expected a new or.*--export=.*{name}"):
            outputs.check_folder(tmp_path / name)
    assert (voice / "thesis.txt").exists()


def test_a_wav_file_is_made_when_there_is_something_to_write(tmp_path):
    path = tmp_path / "new" / "a.wav"
    with WavFile(path, 8000):
        assert not path.parent.exists()
    with WavFile(path, 8000) as file:
        file.write(np.arange(5, dtype="int16"))
    before = path.read_bytes()
    with WavFile(path, 8000):
        pass
    assert path.read_bytes() == before and len(before) == 54


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
