"""What a folder says: texts, speakers, what is held out, and what is left out."""

import os
import pathlib
import types
import unicodedata

import numpy as np
import pytest

from keras_es.datasets import audio, tfds
from keras_es.datasets.audio import folder
from tests.datasets.recordings import RATE, ids, lines_of, tone, write


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


@pytest.mark.parametrize(
    ("encoding", "place", "looks"),
    [
        ("latin-1", "line 2", "Latin-1"),
        ("utf-16", "line 1", "UTF-16"),
        ("utf-16-le", "line 1", "UTF-16"),
    ],
)
def test_texts_in_another_encoding_are_refused(tmp_path, encoding, place, looks):
    write(tmp_path / "a.wav", tone())
    (tmp_path / "metadata.csv").write_bytes("a|one\nb|für\n".encode(encoding))
    error, _ = lines_of(tmp_path)
    assert f"must be UTF-8; {place} is not, and looks like {looks}" in str(error)


def test_files_without_a_line_and_lines_of_too_many_fields_are_said(tmp_path, plain):
    for name in "abcdefg":
        write(tmp_path / f"{name}.wav", tone(0.1))
    texts = "a|one\nb|Hello | there\nc|x|y|z\n"
    (tmp_path / "metadata.csv").write_text(texts)
    data, said = lines_of(tmp_path)
    assert {u.id: u.text for u in (*data.train, *data.test)} == {
        "a": "one",
        "b": "there",
    }
    assert said == [
        "metadata.csv, line 3: skipped, expected id|text or id|text|normalised text; "
        "received 'c|x|y|z'",
        "metadata.csv: skipped 4 of 7 files, which have no line in it: d, e, f, ...",
    ]


def test_a_line_ends_at_a_line_feed_and_names_are_composed(tmp_path, plain):
    texts = {"ä": "one\u2028two", "b": "x\x0by", "ö": "w\x85z\x0c."}
    for name, form in zip(texts, ("NFD", "NFC", "NFC"), strict=True):
        write(tmp_path / f"{unicodedata.normalize(form, name)}.wav", tone(0.1))
    lines = [f"{name}|{text}\r\n" for name, text in texts.items()]
    lines[-1] = unicodedata.normalize("NFD", lines[-1])
    (tmp_path / "metadata.csv").write_bytes("".join(lines).encode())
    data, said = lines_of(tmp_path)
    assert said == []
    assert {u.text for u in (*data.train, *data.test)} == set(texts.values())


def test_links_to_folders_are_followed_once(tmp_path, plain, monkeypatch):
    for name in ("ann/1", "ann/2", "bob/3"):
        write(tmp_path / "all" / f"{name}.wav", tone(0.1))
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "ann").symlink_to(tmp_path / "all" / "ann")
    (linked / "back").symlink_to(linked)
    data, _ = lines_of(linked)
    assert ids(data.train) + ids(data.test) == ["ann/1", "ann/2"]
    # What is there itself keeps its name.
    (tmp_path / "all" / "a").symlink_to(tmp_path / "all" / "ann")
    data, _ = lines_of(tmp_path / "all")
    assert ids(data.train) + ids(data.test) == ["ann/1", "ann/2", "bob/3"]
    monkeypatch.chdir(tmp_path)
    assert audio.is_audio("linked")
    # The folder itself is a speaker, by whatever name it is given.
    monkeypatch.chdir(tmp_path / "all" / "ann")
    assert lines_of(".")[0].speakers == ["ann"]


def test_one_recording_in_two_kinds_of_files_is_on_one_side(tmp_path, monkeypatch):
    pytest.importorskip("soundfile", reason="needs the speech extra")
    for name in ("a.wav", "b.wav", "b.FLAC"):
        write(tmp_path / name, tone(0.1))
    data, said = lines_of(tmp_path)
    assert said == [] and ids(data.train) == ["a"]
    assert sorted(ids(data.test)) == ["b.FLAC", "b.wav"]


@pytest.mark.parametrize(("first", "side"), [(5, "training"), (1, "test")])
def test_digits_of_one_split_alone_are_held_out_by_the_sentence(
    tmp_path, plain, first, side
):
    for digit in range(4):
        for speaker in ("al", "jo"):
            write(tmp_path / f"{digit}_{speaker}_{first + digit}.wav", tone(0.1))
    data, said = lines_of(tmp_path)
    assert said == [
        f"all recordings are of the data set's own {side} split: every tenth sentence "
        "is held out for test in its place"
    ]
    assert {u.text for u in data.test} == {"zero"} and len(data.train) == 6


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
    known = ("ljspeech", "voice", "/away", "./x", "~/x", ".", pathlib.Path("voice"))
    assert all(map(audio.is_audio, known))
    others = ("mnist", "cifar10/3.0.2", "digits", "a/b", "")
    assert not any(map(audio.is_audio, others))


def test_a_folder_may_be_a_path(tmp_path, plain):
    for name in "ab":
        write(tmp_path / f"{name}.wav", tone(0.1))
    assert audio.load(tmp_path).name == str(tmp_path)


def test_the_real_recordings(monkeypatch):
    place = pathlib.Path(os.environ.get("KERAS_ES_DATA_DIR", ""), "ljspeech_subset")
    if not place.is_dir():
        pytest.skip("KERAS_ES_DATA_DIR has no ljspeech_subset")
    rows = folder.recordings(place, print)
    assert len(rows) == 32 and all(row.text for row in rows)
    samples, rate = audio.read(rows[1].path)
    assert rate == 22050 and 1.5 < len(samples) / rate < 2.5
