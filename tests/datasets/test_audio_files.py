"""From a folder to utterances: decoders, bad files, texts, speakers, the cache."""

import os
import pathlib
import types
import wave

import numpy as np
import pytest

from keras_es.datasets import audio, tfds
from keras_es.datasets.audio import cache, decoding, folder, utterances

RATE = 8000


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(cache.VARIABLE, "")


@pytest.fixture
def plain(monkeypatch):
    """Neither tensorflow-io nor soundfile nor soxr."""

    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(decoding, "_tensorflow_io", lambda: None)
    monkeypatch.setattr(decoding, "_found", lambda module: False)
    monkeypatch.setattr(decoding, "_import", missing)


def write(path, samples, rate=RATE, width=2):
    """Write samples [T] or [T, channels] in [-1, 1] to a wav file."""
    samples = np.asarray(samples, "float64")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    full = 2.0 ** (8 * width - 1)
    integers = np.clip(np.round(samples * full), -full, full - 1).astype("int64")
    if width == 1:
        raw = (integers + 128).astype("u1").tobytes()
    else:
        raw = integers.ravel().astype("<i4").view("u1").reshape(-1, 4)
        raw = raw[:, :width].tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", "not compressed"))
        file.writeframes(raw)
    return path


def tone(seconds=0.5, rate=RATE, frequency=440.0, size=0.5):
    return size * np.sin(2 * np.pi * frequency * np.arange(seconds * rate) / rate)


def lines_of(name, **arguments):
    said = []
    try:
        data = audio.load(str(name), say=said.append, **arguments)
    except ValueError as error:
        data = error
    return data, said


def ids(found):
    return [u.id for u in found]


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_numbers_are_read_exactly_and_channels_averaged(
    tmp_path, plain, width, channels
):
    values = np.array([0.0, 0.5, -1.0, 0.25, -0.75, 0.125])
    rows = values if channels == 1 else np.stack([values, -values / 2], 1)
    samples, rate = audio.read(write(tmp_path / "a.wav", rows, 11025, width))
    assert rate == 11025 and samples.dtype == "float32"
    expected = values if channels == 1 else values / 4
    np.testing.assert_array_equal(samples, expected)


def test_one_broken_file_of_each_kind_is_skipped_with_a_line(tmp_path, plain):
    whole = write(tmp_path / "good1.wav", tone()).read_bytes()
    write(tmp_path / "good2.wav", tone(frequency=300.0))
    write(tmp_path / "silent.wav", np.zeros(4000))
    write(tmp_path / "clipped.wav", 3 * tone())
    write(tmp_path / "short.wav", tone(0.02))
    write(tmp_path / "no_samples.wav", [])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "cut.wav").write_bytes(whole[:-1000])
    (tmp_path / "header.wav").write_bytes(whole[:20])
    (tmp_path / "text.wav").write_text("this is no sound")
    floats = bytearray(whole)
    floats[20] = 3  # WAVE_FORMAT_IEEE_FLOAT
    (tmp_path / "floats.wav").write_bytes(floats)
    (tmp_path / "song.mp3").write_bytes(b"ID3 and nothing else")
    (tmp_path / "folder.wav").mkdir()
    data, said = lines_of(tmp_path)
    assert ids(data.train) + ids(data.test) == ["good1", "good2"]
    found = dict(line.split(": skipped, ", 1) for line in said)
    expected = {
        "silent": "it is silent",
        "clipped": "it is clipped: ",
        "short": "it is too short",
        "no_samples": "it has no samples",
        "empty": "the file is empty",
        "cut": "it is cut short: 7,000 of 8,000 bytes of samples",
        "header": "it has no samples",
        "text": "it is no wav file",
        "floats": "unknown format: 3; pip install 'keras_es[speech]'",
        "song": "a .mp3 file needs soundfile",
    }
    assert found.keys() == expected.keys()
    for name, text in expected.items():
        assert text in found[name], found[name]


def test_a_folder_of_nothing_but_bad_files_is_refused(tmp_path, plain):
    assert "found none" in str(lines_of(tmp_path)[0])
    (tmp_path / "a.wav").write_bytes(b"")
    assert "no recording of it can be used" in str(lines_of(tmp_path)[0])
    assert "no such folder" in str(lines_of(tmp_path / "away")[0])
    (tmp_path / "a.wav").unlink()
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    with pytest.raises(ImportError, match=r"needs soundfile.*keras_es\[speech\]"):
        lines_of(tmp_path)


def test_silence_around_is_trimmed_and_the_level_kept(tmp_path, plain):
    sound = np.concatenate([np.zeros(RATE), tone(0.5), np.zeros(RATE // 2)])
    write(tmp_path / "a.wav", sound)
    write(tmp_path / "b.wav", 2 * tone(0.5))  # full scale, and not clipped
    data, said = lines_of(tmp_path)
    assert said == []
    a, b = (*data.train, *data.test)
    margin = utterances.MARGIN * data.hop
    assert len(a.samples) == 4000 + 2 * margin and len(b.samples) == 4000
    expected = np.round(tone(0.5) * 32768)
    np.testing.assert_array_equal(a.samples[margin:-margin], expected)
    assert b.samples.max() == 32767 and b.samples.min() == -32768


def test_mixed_rates_need_soxr_and_say_so(tmp_path, plain):
    write(tmp_path / "a.wav", tone())
    write(tmp_path / "b.wav", tone())
    write(tmp_path / "c.wav", tone(rate=16000), rate=16000)
    data, said = lines_of(tmp_path)
    assert data.sample_rate == RATE and ids(data.train) + ids(data.test) == ["a", "b"]
    assert "resampling from 16,000 to 8,000 Hz needs soxr" in said[0]
    with pytest.raises(ImportError, match="needs soxr"):
        audio.load(str(tmp_path), sample_rate=12000, say=said.append)


def test_metadata_of_both_forms(tmp_path, plain):
    for name in ("wavs/one", "wavs/two", "wavs/three", "more/three", "wavs/four"):
        write(tmp_path / f"{name}.wav", tone())
    (tmp_path / "metadata.csv").write_bytes(
        "\ufeffone|Dr. One|Doctor One\r\n"
        "two.wav|Two\r\n"
        "\r\n"
        "more/three|Three|\r\n"
        "three|Which?|Which?\r\n"
        "away|Not there|Not there\r\n"
        "one|Again|Again\r\n"
        "four\r\n".encode()
    )
    data, said = lines_of(tmp_path)
    texts = {u.id: (u.text, u.speaker) for u in (*data.train, *data.test)}
    assert texts == {
        "wavs/one": ("Doctor One", "wavs"),
        "wavs/two": ("Two", "wavs"),
        "more/three": ("Three", "more"),
    }
    assert [line.split(": ", 1)[1] for line in said] == [
        "skipped, there is several files of the name 'three'",
        "skipped, there is no file of the name 'away'",
        "skipped, 'one' stands there before",
        "skipped, expected id|text; received 'four'",
    ]
    (tmp_path / "metadata.csv").write_text("nobody|Nothing\n")
    assert "names no file of the folder" in str(lines_of(tmp_path)[0])


def test_spoken_digits_are_known_by_their_names_and_held_out(tmp_path, plain):
    for digit in (0, 7):
        for speaker in ("ann", "bob"):
            for index in (4, 5, 12):
                write(tmp_path / f"{digit}_{speaker}_{index}.wav", tone(0.1))
    data, _ = lines_of(tmp_path)
    assert {u.text for u in data.train} == {"zero", "seven"}
    assert data.speakers == ["ann", "bob"]
    assert {u.id.split("_")[2] for u in data.test} == {"4"} and len(data.train) == 8
    data, _ = lines_of(tmp_path, hold_out="speaker")
    assert {u.speaker for u in data.test} == {"bob"}
    assert {u.speaker for u in data.train} == {"ann"}


def test_a_sentence_that_is_held_out_is_so_of_all_speakers(tmp_path, plain):
    for speaker in ("x", "y"):
        for i in range(10):
            write(tmp_path / speaker / f"{speaker}{i}.wav", tone(0.1))
    rows = [f"{s}{i}|Sentence {i}" for s in "xy" for i in range(10)]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    data, _ = lines_of(tmp_path)
    assert ids(data.test) == ["x/x9", "y/y9"] and len(data.train) == 18
    one = "\n".join(row for row in rows if row.startswith("x"))
    (tmp_path / "metadata.csv").write_text(one)
    data, _ = lines_of(tmp_path, hold_out="speaker")
    assert "at least two speakers are needed" in str(data)
    with pytest.raises(ValueError, match="Received: hold_out='word'"):
        audio.load(str(tmp_path), hold_out="word")


def test_features_come_from_the_cache_until_a_file_changes(
    tmp_path, plain, monkeypatch
):
    where, data_dir = tmp_path / "cache", tmp_path / "data"
    monkeypatch.setenv(cache.VARIABLE, str(where))
    for name in ("a", "b"):
        write(data_dir / f"{name}.wav", tone())
    (data_dir / "c.wav").write_bytes(b"")
    seen = []
    real = utterances.read

    def read(path, rate):
        seen.append(path.stem)
        return real(path, rate)

    monkeypatch.setattr(utterances, "read", read)

    def load():
        seen.clear()
        data, said = lines_of(data_dir)
        assert said == ["c: skipped, the file is empty"]
        return [(u.samples.tobytes(), u.mel.tobytes()) for u in data.train]

    first = load()
    assert seen == ["a", "b", "c"]
    assert load() == first and seen == []
    [stored] = where.iterdir()
    stored.write_bytes(stored.read_bytes()[:-100])
    assert load() == first and seen == ["a", "b", "c"]
    os.utime(data_dir / "b.wav", (1, 1))
    assert load() == first and seen == ["a", "b", "c"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "in it"))
    assert load() == first  # a cache that cannot be written is done without


def test_ljspeech_of_tensorflow_datasets(plain, monkeypatch):
    integers = np.round(tone(0.2) * 32768).astype("int16")
    rows = [
        {
            "id": f"LJ{i}".encode(),
            "speech": integers,
            "text": b"Dr. X",
            "text_normalized": b"Doctor X" + bytes([48 + i]) if i else b"",
        }
        for i in range(3)
    ]
    feature = types.SimpleNamespace(sample_rate=RATE)
    builder = types.SimpleNamespace(
        data_dir="/data/ljspeech/1.1.1",
        info=types.SimpleNamespace(
            features={"speech": feature},
            splits={"train": types.SimpleNamespace(num_examples=3)},
        ),
        as_dataset=lambda split: types.SimpleNamespace(
            as_numpy_iterator=lambda: iter(rows)
        ),
    )
    monkeypatch.setattr(tfds, "speech_builder", lambda name, data_dir: builder)
    data, said = lines_of("ljspeech")
    texts = [u.text for u in (*data.train, *data.test)]
    assert sorted(texts) == ["Doctor X1", "Doctor X2", "Dr. X"]
    assert data.sample_rate == RATE and said == []
    np.testing.assert_array_equal(data.test[0].samples, integers)


def test_what_is_audio(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    write(tmp_path / "voice" / "deep" / "a.wav", tone())
    known = ("ljspeech", "voice", "/away", "./x", "~/x", ".")
    assert all(map(audio.is_audio, known))
    assert not any(map(audio.is_audio, ("mnist", "cifar10/3.0.2", "digits", "a/b")))


def test_the_real_recordings(monkeypatch):
    place = pathlib.Path(os.environ.get("KERAS_ES_DATA_DIR", ""), "ljspeech_subset")
    if not place.is_dir():
        pytest.skip("KERAS_ES_DATA_DIR has no ljspeech_subset")
    rows = folder.recordings(place, print)
    assert len(rows) == 32 and all(row.text for row in rows)
    samples, rate = audio.read(rows[1].path)
    assert rate == 22050 and 1.5 < len(samples) / rate < 2.5


# The two ways to decode, each where it is there.


def chirp(rate, seconds=1.0, to=3000.0):
    """A sweep that stays below what 8 kHz can hold, with silent ends."""
    time = np.arange(seconds * rate) / rate
    phase = 2 * np.pi * (100 * time + (to - 100) * time**2 / (2 * seconds))
    return 0.5 * np.sin(phase) * np.sin(np.pi * time / seconds) ** 2


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_soundfile_reads_what_wave_reads(tmp_path, name):
    soundfile = pytest.importorskip("soundfile", reason="needs the speech extra")
    path = write(tmp_path / "a.wav", np.stack([tone(), chirp(RATE, 0.5)], 1))
    samples, _ = audio.read(path, library="wave")
    if name == "flac":
        integers, rate = soundfile.read(path, dtype="int16")
        path = tmp_path / "a.flac"
        soundfile.write(path, integers, rate)
    again, rate = audio.read(path, library="soundfile")
    assert rate == RATE
    np.testing.assert_array_equal(again, samples)


@pytest.mark.parametrize("rates", [(16000, 8000), (22050, 8000), (8000, 16000)])
def test_soxr_keeps_the_place_of_a_sound(rates):
    pytest.importorskip("soxr", reason="needs the speech extra")
    found = decoding._resampled(chirp(rates[0]).astype("float32"), *rates, False)
    expected = chirp(rates[1])
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.audio
@pytest.mark.parametrize("width", [1, 2, 3])
def test_tensorflow_io_reads_what_wave_reads(tmp_path, width):
    pytest.importorskip("tensorflow_io", reason="needs the audio extra")
    rows = np.stack([tone(), chirp(RATE, 0.5)], 1)
    path = write(tmp_path / "a.wav", rows, RATE, width)
    samples, _ = audio.read(path, library="wave")
    again, rate = audio.read(path, library="tensorflow-io")
    assert rate == RATE
    np.testing.assert_array_equal(again, samples)


@pytest.mark.audio
@pytest.mark.parametrize("rates", [(16000, 8000), (22050, 8000), (8000, 16000)])
def test_tensorflow_io_s_delay_is_taken_off(rates):
    pytest.importorskip("tensorflow_io", reason="needs the audio extra")
    found = decoding._resampled(chirp(rates[0]).astype("float32"), *rates, True)
    expected = chirp(rates[1])
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.audio
def test_files_that_are_broken_do_not_end_tensorflow_io(tmp_path):
    pytest.importorskip("tensorflow_io", reason="needs the audio extra")
    whole = write(tmp_path / "a.wav", tone()).read_bytes()
    write(tmp_path / "b.wav", tone())
    (tmp_path / "cut.wav").write_bytes(whole[:-1000])
    (tmp_path / "text.flac").write_text("no sound")
    (tmp_path / "text.mp3").write_text("no sound")
    (tmp_path / "odd.wav").write_bytes(whole[:22] + b"\0\0" + whole[24:])
    data, said = lines_of(tmp_path)
    assert ids(data.train) + ids(data.test) == ["a", "b"] and len(said) == 4


def test_integers_of_16_bits_come_back_as_they_were():
    every = np.arange(-32768, 32768)
    floats = audio.from_int16(every)
    assert floats.dtype == "float32" and floats.min() == -1.0 and floats.max() < 1.0
    np.testing.assert_array_equal(audio.to_int16(floats), every)
    assert audio.to_int16(np.array([-1.5, 1.0])).tolist() == [-32768, 32767]
