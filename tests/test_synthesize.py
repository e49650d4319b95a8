"""synthesize.py: sound of texts and of recordings, files, wrong flags, SavedModels."""

import json
import signal
import wave

import keras
import numpy as np
import pytest

import synthesize
from keras_es.datasets import audio
from keras_es.runs import checkpoints
from models import text_to_mel
from models.sparse_wavernn import Generator, SparseWaveRNN, serving
from models.sparse_wavernn.generator import Stream
from models.sparse_wavernn.wav import WavFile
from tests.speech.test_serving import serve


@pytest.fixture(autouse=True)
def keep_signals():
    """Puts back the handlers; that of Ctrl-C is none in what runs in the background."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs of a voice and of a model of text, of a few weights."""
    place = tmp_path_factory.mktemp("runs")
    keras.utils.set_random_seed(0)
    made = {
        "sparse_wavernn": SparseWaveRNN(units=16, hop=100, channels=7),
        "text_to_mel": text_to_mel.build(" abc", ["me", "you"], 8000, 8, 1),
    }
    for name, model in made.items():
        folder = place / name
        checkpoints.save(model, folder / "checkpoints", checkpoints.Progress(), 1)
        config = {"model": name, "sample_rate": 8000}
        (folder / "config.json").write_text(json.dumps(config))
    samples = np.random.default_rng(0).normal(0, 3000, 1000).astype("<i2")
    with wave.open(str(place / "said.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        file.writeframes(samples.tobytes())
    (place / "empty.wav").touch()
    for name in ("other", "without_rate"):
        (place / name).mkdir()
    (place / "other" / "saved_model.pb").touch()
    (place / "other" / "mine.txt").touch()
    config = {"model": "sparse_wavernn"}
    (place / "without_rate" / "config.json").write_text(json.dumps(config))
    return place, made


def main(*flags):
    return synthesize.main(["synthesize.py", *map(str, flags)])


def read(path):
    with wave.open(str(path)) as file:
        assert file.getparams()[:3] == (1, 2, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_sentences_are_spoken_together(runs, tmp_path, capsys):
    place, made = runs
    flags = (f"--model={place}/sparse_wavernn", f"--text_model={place}/text_to_mel")
    texts = ["a b", "abc cab abc"]
    said = [f"--text={text}" for text in texts]
    out = tmp_path / "new" / "x.wav"
    assert main(*flags, *said, f"--output={out}", "--seed=3", "--speaker=you") == 0
    layer = made["text_to_mel"].get_layer("text_to_mel")
    frames = [len(mel) for mel in layer.speak(texts, "you")]
    found = [read(out.with_stem(f"x-{i}")) for i in (1, 2)]
    assert [len(samples) for samples in found] == [100 * n for n in frames]
    line = capsys.readouterr().out
    assert "x-1.wav" in line and f"{sum(frames) / 80:.2f} s of sound" in line


def test_a_recording_is_spoken_again(runs, tmp_path):
    place, made = runs
    flags = (f"--model={place}/sparse_wavernn", f"--mel_from={place}/said.wav")
    assert main(*flags, f"--output={tmp_path}/x.wav", "--seed=3") == 0
    samples, rate = audio.read(place / "said.wav")
    mel = audio.mel_spectrogram(samples, rate).numpy()
    whole = Generator(made["sparse_wavernn"])(mel[None], seed=3)[0]
    np.testing.assert_array_equal(read(tmp_path / "x.wav"), whole)


@pytest.mark.parametrize(("signum", "pieces"), [("SIGINT", 1), ("SIGTERM", 0)])
def test_stopped_it_leaves_what_was_spoken(
    runs, tmp_path, capsys, monkeypatch, signum, pieces
):
    place, made = runs
    hop, frames = 100, Generator(made["sparse_wavernn"]).program.frames
    samples = np.random.default_rng(1).normal(0, 3000, 60 * hop).astype("<i2")
    with WavFile(tmp_path / "said.wav", 8000) as file:
        file.write(samples)
    spoken = np.arange(1, pieces * frames * hop + 1, dtype="int16")
    older = (tmp_path / "said.wav").read_bytes()
    (tmp_path / "x.wav").write_bytes(older)

    def feed(stream, mel):
        if stream.frames is None and pieces:
            stream.frames = mel
            return spoken[None]
        signal.raise_signal(getattr(signal, signum))

    monkeypatch.setattr(Stream, "feed", feed)
    flags = (f"--model={place}/sparse_wavernn", f"--mel_from={tmp_path}/said.wav")
    code = main(*flags, f"--output={tmp_path}/x.wav")
    assert code == 128 + getattr(signal, signum)
    if pieces:
        np.testing.assert_array_equal(read(tmp_path / "x.wav"), spoken)
    else:  # What was there before is not lost for nothing.
        assert (tmp_path / "x.wav").read_bytes() == older
    [line] = capsys.readouterr().err.splitlines()
    told = f"stopped; {len(spoken) / 8000:.2f} s of sound are in {tmp_path}/x.wav"
    told = told if pieces else "stopped before anything was said"
    assert line == f"synthesize.py: {told}"


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        ((), "expected --model, workdir of a run"),
        (("x",), "expected flags only"),
        (("--sped=2",), "Unknown command line flag 'sped'"),
        (("--model=PLACE/sparse_wavernn",), "either --output=FILE.wav or --export"),
        (("--model=PLACE/away", "SAID", "OUT"), "the workdir of a run of train.py"),
        (("--model=PLACE/text_to_mel", "SAID", "OUT"), "of text_to_mel"),
        (("VOICE", "OUT"), "expected either --text or --mel_from"),
        (("VOICE", "OUT", "SAID", "--text=a"), "expected either --text or --mel_from"),
        (("VOICE", "OUT", "--text=a"), "--text needs --text_model"),
        (("VOICE", "OUT", "SAID", "--speed=2"), "--speed is not used with --mel_from"),
        (("VOICE", "SAID", "--output=x.mp3"), "expected --output=FILE.wav"),
        (("VOICE", "SAID", "OUT", "--seed=-1"), "[0, 2**63)"),
        (("VOICE", "OUT", "--mel_from=PLACE/empty.wav"), "the file is empty"),
        (("VOICE", "OUT", "--mel_from=PLACE/away.wav"), "No such file"),
        (("VOICE", "SAID", "--output=PLACE/said.wav"), "would replace --mel_from"),
        (("--model=PLACE/without_rate", "SAID", "OUT"), "with a sample_rate in its"),
        (("VOICE", "TEXT", "OUT", "--text=\t "), r"words, received --text='\t '"),
        (("VOICE", "TEXT", "OUT", "--text=a", "--speed=abc"), "a number; received --"),
        (("VOICE", "SAID", "OUT", "--seed=1.5"), "an integer; received --seed=1.5"),
        (("VOICE", "TEXT", "OUT", "--text=a", "--speed=0"), "[0.1, 10]"),
        (("VOICE", "TEXT", "OUT", "--text=xyz"), "of the characters 'abc'"),
        (("VOICE", "TEXT", "OUT", "--text=a", "--speaker=he"), "['me', 'you']"),
        (("VOICE", "SAID", "--export=PLACE/new"), "--mel_from is not used with --exp"),
        (("VOICE", "--export=PLACE/other"), "a new or an empty folder"),
    ],
)
def test_wrong_flags_get_one_line(runs, tmp_path, capsys, flags, part):
    place, _ = runs
    words = {
        "VOICE": f"--model={place}/sparse_wavernn",
        "TEXT": f"--text_model={place}/text_to_mel",
        "SAID": f"--mel_from={place}/said.wav",
        "OUT": f"--output={tmp_path}/x.wav",
    }
    given = [words.get(flag, flag).replace("PLACE", str(place)) for flag in flags]
    before = (place / "said.wav").read_bytes()
    assert main(*given) == 2
    assert (place / "other" / "mine.txt").exists()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("synthesize.py: ") and part in line
    assert not list(tmp_path.iterdir())
    assert (place / "said.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--model=~nosuchuser/x", "SAID", "OUT"), "use ~nosuchuser/x: there is no"),
        (("VOICE", "--mel_from=~nosuchuser/x.wav", "OUT"), "there is no such user"),
        (("VOICE", "SAID", "--output=~nosuchuser/x.wav"), "there is no such user"),
        (("VOICE", "--export=~nosuchuser/x"), "there is no such user"),
        (
            ("VOICE", "SAID", "SAID", "OUT"),
            "cannot write TMP/x-2.wav: what is there is",
        ),
        (("VOICE", "SAID", "--output=TMP/x-1.wav/y.wav"), "x-1.wav is no folder"),
    ],
)
def test_places_are_looked_at_before_anything_is_changed(
    runs, tmp_path, capsys, flags, part
):
    place, _ = runs
    (tmp_path / "x-1.wav").write_bytes(b"older")
    (tmp_path / "x-2.wav").mkdir()
    words = {
        "VOICE": f"--model={place}/sparse_wavernn",
        "SAID": f"--mel_from={place}/said.wav",
        "OUT": f"--output={tmp_path}/x.wav",
    }
    given = [words.get(flag, flag).replace("TMP", str(tmp_path)) for flag in flags]
    assert main(*given) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert part.replace("TMP", str(tmp_path)) in line
    assert (tmp_path / "x-1.wav").read_bytes() == b"older"
    assert len(list(tmp_path.iterdir())) == 2


def test_help_has_a_line_for_each_flag(capsys):
    assert main("--help") == 0
    shown = capsys.readouterr().out
    assert all(f"  --{name} " in shown for name in synthesize.define_flags())


def test_tokens_of_a_graph_are_those_of_python(runs):
    layer = runs[1]["text_to_mel"].get_layer("text_to_mel")
    from keras_es.datasets.audio.sentences import encode

    spaces = ("a\u00a0b", "a\x1fb", "\x0bab\x85", "a \x0b\u2003 b", "\u3000c")
    for text in ("A  b\n c", "abc ", "c", *spaces):
        assert layer.tokens_of(text).numpy().tolist() == encode(text, " abc")
    assert [int(layer.number_of(name)) for name in ("me", "you", "")] == [0, 1, 0]


@pytest.mark.slow
def test_a_saved_voice_speaks_texts(runs, tmp_path):
    place, made = runs
    folder = tmp_path / "voice"
    flags = (f"--model={place}/sparse_wavernn", f"--text_model={place}/text_to_mel")
    for _ in range(2):  # The second replaces the first.
        assert main(*flags, f"--export={folder}") == 0
    found = serve(folder, tmp_path, ["a b", "cab", "A"], "you", seed=7)
    layer = made["text_to_mel"].get_layer("text_to_mel")
    mel = np.concatenate(layer.speak(["a b", "cab", "A"], "you"))
    whole = Generator(made["sparse_wavernn"])(mel[None], seed=7)
    # Frames are rounded otherwise in a graph; almost all samples are the same.
    assert found.shape == whole.shape
    assert np.mean(found == whole) > 0.95
    assert serving.Voice(Generator(made["sparse_wavernn"])).functions.keys() == {
        "vocode"
    }
