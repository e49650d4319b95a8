"""From files to utterances: decoders, and files that are skipped."""

import numpy as np
import pytest

from keras_es.datasets import audio
from keras_es.datasets.audio import decoding, utterances
from tests.datasets.recordings import RATE, ids, lines_of, tone, write


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


def test_an_offset_is_no_sound(tmp_path, plain):
    write(tmp_path / "constant.wav", np.full(4000, 0.5))
    quiet = np.zeros(4000)
    write(tmp_path / "a.wav", np.concatenate([quiet, tone(), quiet]) + 0.2)
    write(tmp_path / "b.wav", np.concatenate([quiet, tone() + 0.2, quiet]))
    data, said = lines_of(tmp_path)
    assert said == ["constant: skipped, it is silent"]
    a, b = (*data.train, *data.test)
    margin = utterances.MARGIN * data.hop
    assert len(a.samples) == len(b.samples) == 4000 + 2 * margin
    inside = np.round((tone() + 0.2) * 32768)
    np.testing.assert_array_equal(a.samples[margin:-margin], inside)


def test_a_rate_that_is_none_or_too_little_memory_ends_no_run(
    tmp_path, plain, monkeypatch
):
    for name in "abz":
        write(tmp_path / f"{name}.wav", tone())
    for rate in (1, 7, 500):
        write(tmp_path / f"rate{rate}.wav", tone(), rate)
    real = utterances.read

    def read(path, rate, **options):
        if path.stem == "z":
            raise MemoryError
        return real(path, rate, **options)

    monkeypatch.setattr(utterances, "read", read)
    data, said = lines_of(tmp_path)
    assert ids(data.train) + ids(data.test) == ["a", "b"]
    assert said == [
        "rate1: skipped, its rate is 1 Hz, and at least 1,000 are needed",
        "rate500: skipped, its rate is 500 Hz, and at least 1,000 are needed",
        "rate7: skipped, its rate is 7 Hz, and at least 1,000 are needed",
        "z: skipped, it takes more memory than there is",
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: audio.read(path, 0), "`sample_rate` must be .* 1000"),
        (lambda path: audio.read(path, "8000"), "`sample_rate` must be"),
        (lambda path: audio.read(path, 8000.5), "`sample_rate` must be"),
        (lambda path: audio.read(None), "`path` must be a path"),
        (lambda path: audio.resample(tone(), 0, 8000), "`rate` must be an integer"),
        (lambda path: audio.resample(tone(), 8000, -5), "`to` must be an integer"),
        (lambda path: audio.resample(tone(), "8000", 8000), "`rate` must be"),
        (lambda path: audio.resample(tone(), 8000, 7999.5), "`to` must be"),
        (lambda path: audio.load(path.parent, data_dir="x"), "is a folder itself"),
        (lambda path: audio.load(""), "`name` must be a folder .* name=''"),
        (lambda path: audio.load(5), "`name` must be a folder .* name=5"),
    ],
)
def test_arguments_that_will_not_do(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(write(tmp_path / "a.wav", tone()))


def test_mixed_rates_need_soxr_and_say_so(tmp_path, plain):
    write(tmp_path / "a.wav", tone())
    write(tmp_path / "b.wav", tone())
    write(tmp_path / "c.wav", tone(rate=16000), rate=16000)
    data, said = lines_of(tmp_path)
    assert data.sample_rate == RATE and ids(data.train) + ids(data.test) == ["a", "b"]
    assert "resampling from 16,000 to 8,000 Hz needs soxr" in said[0]
    with pytest.raises(ImportError, match="needs soxr"):
        audio.load(str(tmp_path), sample_rate=12000, say=said.append)


# The ways to decode, each where it is there.

LIBRARIES = [
    "wave",
    "soundfile",
    pytest.param("tensorflow-io", marks=pytest.mark.audio),
]


@pytest.fixture
def library(request):
    """The name of a library, if it is there."""
    name = request.param
    if name != "wave":
        pytest.importorskip(name.replace("-", "_"), reason="needs an extra")
    return name


@pytest.mark.parametrize("library", LIBRARIES, indirect=True)
def test_clipping_is_counted_in_what_is_stored(tmp_path, library):
    loud, quiet = 3 * tone(), tone()
    kinds = [
        ("it is clipped: .* of it", loud, 2),
        ("it is clipped: .* of a channel", np.stack([loud, 0 * loud], 1), 2),
        ("it is clipped: .* of it", np.maximum(loud, -0.9), 1),  # at 127 / 128
        ("it is clipped: .* of it", np.maximum(loud, -0.9), 3),
    ]
    for message, samples, width in kinds:
        path = write(tmp_path / "a.wav", samples, RATE, width)
        with pytest.raises(audio.BadAudioError, match=message):
            audio.read(path, library=library, most_clipped=0.01)
        audio.read(path, library=library)
        path = write(tmp_path / "b.wav", quiet, RATE, width)
        audio.read(path, library=library, most_clipped=0.01)


@pytest.mark.parametrize("library", ["soxr", "tensorflow-io"])
def test_an_offset_ends_with_no_click_at_another_rate(library):
    pytest.importorskip(library.replace("-", "_"), reason="needs an extra")
    constant = np.full(4000, 0.5, "float32")
    for rate in (16000, 8001):
        found = decoding._resampled(constant, 8000, rate, library != "soxr")
        assert len(found) == rate // 2 + rate % 2
        np.testing.assert_allclose(found, 0.5, atol=2e-5)


def test_lines_name_files_of_one_stem_apart_and_no_addresses(tmp_path):
    pytest.importorskip("soundfile", reason="needs the speech extra")
    for name in "ab":
        write(tmp_path / f"{name}.wav", tone())
    (tmp_path / "x.flac").write_bytes(b"fLaC" + bytes(200))
    (tmp_path / "x.mp3").write_bytes(b"\xff\xfb" + bytes(300))
    _, said = lines_of(tmp_path)
    assert [line.split(":")[0] for line in said] == ["x.flac", "x.mp3"]
    assert not any("BytesIO" in line for line in said)


def test_wav_files_of_odd_sizes(tmp_path, plain):
    whole = write(tmp_path / "a.wav", tone(0.1)).read_bytes()
    unknown = whole[:40] + b"\xff" * 4 + whole[44:] + b"\0"  # half a sample more
    (tmp_path / "a.wav").write_bytes(unknown)
    assert len(audio.read(tmp_path / "a.wav")[0]) == 800
    (tmp_path / "a.wav").write_bytes(whole[:34] + b"\x28" + whole[35:])
    with pytest.raises(audio.BadAudioError, match="samples of 40 bits"):
        audio.read(tmp_path / "a.wav")


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
