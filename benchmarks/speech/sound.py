"""The suite `sound`: what finished runs of `bits` sound like, measured.

Copy synthesis of held-out digits is compared with the recordings, frame by frame, and a
listener (see `listener`) says which digits it hears, there and in digits that are
spoken from their texts. Every voice says the same with the same random numbers.
"""

from pathlib import Path

import numpy as np

from benchmarks.accuracy.results import Results
from benchmarks.speech import bits, distances, quality, samples

RECORDED, FRAMES_ALONE = "recorded", "griffin_lim"
"""Rows of no voice: the recordings, and sound of their frames without a network."""

DISTANCES = {
    "distortion": "mel cepstral distortion, dB",
    "spectral": "log-spectral distance, dB",
    "visqol": "ViSQOL",
}
"""Of one utterance each, ViSQOL of a speaker's digits; compared by differences."""

LISTENED = {
    "envelope": "correlation of envelopes",
    "voiced": "voiced frames kept",
    "near": "pitch within a fifth",
    "cents": "pitch, cents off",
    "heard": "digits heard",
    "heard_text": "digits of texts heard",
}
"""Means over utterances."""

KEYS = (*bits.KEYS, "utterances")


def run(flags):
    """Measure the voices that are not in the results yet; return all rows.

    Args:
        flags: Those of `bits.add_flags`.
    """
    results = Results(bits.RESULTS / bits.FILE, KEYS)
    # A row that no listener has heard is measured again.
    whole = [row for row in results.rows() if row.get("heard") is not None]
    known = {tuple(row[k] for k in KEYS) for row in whole}
    work = Path(flags.work).resolve()
    voices = [
        case
        for case in bits.cases("bits", flags)
        if (folder(work, case) / "summary.json").exists()
    ]
    if not voices:
        raise SystemExit(f"{work} has no finished run of these; see --suite=bits")
    own = {"suite": "sound", "utterances": flags.utterances}
    first = voices[0] | {"units": 0, "sparsity": 0.0, "seed": 0}
    others = [first | {"method": name} for name in (FRAMES_ALONE, RECORDED)]
    # The recordings last: the listener is trained again for them.
    wanted = [case | own for case in (*voices, *others)]
    todo = [c for c in wanted if tuple(c[k] for k in KEYS) not in known]
    if todo and not flags.report:
        stage = Stage(flags, work)
        for case in todo[: flags.most]:
            row = case | stage.measured(case)
            results.add(row)
            print(f"{case['method']}: {row['heard']:.0%} heard", flush=True)
        stage.keep_samples(voices)
    return [row for row in results.rows() if row["suite"] == "sound"]


def folder(work, case):
    """Return the folder of the run of `bits` that a voice is of."""
    return work / bits.name_of(case | {"suite": "bits"})


class Stage:
    """Recordings, a listener, frames of texts: what all voices are measured with.

    Args:
        flags: Those of the command.
        work: Folder of the runs.
    """

    def __init__(self, flags, work):
        from benchmarks.speech import listener, voices
        from keras_es.datasets import audio

        self.listener, self.voices, self.work = listener, voices, work
        # The listener hears all there is, voices learn from a part of it.
        self.data = audio.load(str(flags.dataset))
        self.rate = self.data.sample_rate
        self.said = chosen(self.data.test, flags.utterances)
        self.digits = listener.labels(self.said)
        self.model = listener.of_file(
            work / "listener.keras", lambda: listener.train(self.data.train, self.rate)
        )
        part = bits.linked(
            flags.dataset, work / f"digits-{flags.recordings}", flags.recordings
        )
        place = work / f"text-{flags.recordings}"
        self.text_error = voices.text_run(part, place)
        self.from_text = voices.frames_of_texts(place, self.said)
        self.recorded = [said.samples for said in self.said]
        self.made = {}

    def measured(self, case):
        """Return what is measured of a voice, or of a row of none."""
        again, spoken = self.speak(case)
        found = {}
        if case["method"] == RECORDED:
            everyone = [*self.data.train, *self.data.test]
            by_speaker = self.listener.by_held_out_speakers(everyone, self.rate)
            found = {"heard_new_speakers": by_speaker, "text_error": self.text_error}
        else:
            found = compared(self.recorded, again, self.rate)
            found["visqol"] = quality.by_speaker(self.said, again, self.rate)
        found["heard"] = self._share(again)
        if spoken is not None:
            found["heard_text"] = self._share(spoken)
        return found

    def speak(self, case):
        """Return the sounds of recorded frames and of texts' frames (or None)."""
        name = folder(self.work, case)
        if name not in self.made:
            mels = [said.mel for said in self.said]
            if case["method"] == RECORDED:
                self.made[name] = self.recorded, None
            elif case["method"] == FRAMES_ALONE:
                sounds = [samples.of_frames(m, self.rate) for m in mels]
                texts = [samples.of_frames(m, self.rate) for m in self.from_text]
                self.made[name] = sounds, texts
            else:
                model = self.voices.load(folder(self.work, case))
                voice = self.voices.Voice(model, len(mels))
                self.made[name] = voice(mels), voice(self.from_text)
        return self.made[name]

    def _share(self, sounds):
        found = self.listener.heard(self.model, sounds, self.rate)
        return float(np.mean(found == self.digits))

    def keep_samples(self, cases):
        """Write wav files and their spectrograms, of the first seed of each voice."""
        speaker = self.said[0].speaker
        own = [i for i, said in enumerate(self.said) if said.speaker == speaker]
        own = own[: len(self.listener.DIGITS)]
        shown = {RECORDED: [self.recorded[i] for i in own]}
        for case in cases:
            if case["seed"] == 0:
                again, spoken = self.speak(case)
                name = bits.label(case)
                shown[name] = [again[i] for i in own]
                shown[f"{name}, texts"] = [spoken[i] for i in own]
        samples.keep(shown, self.rate, bits.RESULTS / "speech")


def chosen(utterances, count):
    """Return so many utterances, evenly of all speakers and digits, sorted.

    Args:
        utterances: `Utterance`s named DIGIT_SPEAKER_INDEX.
        count: How many.
    """

    def place(said):
        digit, speaker, index = said.id.rsplit("/")[-1].split("_")
        return int(index), digit, speaker

    first = sorted(utterances, key=place)[:count]
    return sorted(first, key=lambda said: (said.speaker, said.id))


def compared(recorded, again, rate):
    """Return distances of each utterance, and means of what is listened to."""
    rows = [_compared(one, other, rate) for one, other in zip(recorded, again)]
    found = {
        name: [round(row[name], 4) for row in rows]
        for name in ("distortion", "spectral")
    }
    for name in ("envelope", "voiced", "near", "cents"):
        values = np.array([row[name] for row in rows])
        # None where nothing was voiced: JSON has no NaN.
        known = values[np.isfinite(values)]
        found[name] = float(known.mean()) if len(known) else None
    return found


def _compared(one, other, rate):
    cepstra = [distances.mel_cepstrum(s, rate) for s in (one, other)]
    spectra = [distances.spectrum(s, rate) for s in (one, other)]
    levels = [distances.envelope(s, rate) for s in (one, other)]
    pitches = [distances.pitch_track(s, rate) for s in (one, other)]
    return {
        "distortion": distances.cepstral_distortion(*cepstra),
        "spectral": distances.log_spectral_distance(*spectra),
        "envelope": distances.correlation(*levels),
        **distances.pitch_agreement(*pitches),
    }


def table(rows):
    """Return tables: distances with differences from dense, and what is heard."""
    return "\n\n".join([_distances(rows), _listened(rows)])


def _distances(rows):
    dense = {_same(row): row for row in rows if row["method"] == "none"}
    lines = _top(DISTANCES)
    for row in rows:
        if row["method"] == RECORDED:
            continue
        base = dense.get(_same(row)) if row["method"] != "none" else None
        cells = [_difference(row.get(name), (base or {}).get(name), row["units"])
                 for name in DISTANCES]  # fmt: skip
        lines.append(f"{_head(row)} {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(values, base, is_voice):
    """Return the mean; behind it the mean difference and its interval."""
    if not values:
        return "not measured"
    cell = f"{np.mean(values):.2f}"
    if base and is_voice:
        mean, low, high = distances.bootstrap(np.subtract(values, base))
        cell += f" ({mean:+.2f}: {low:+.2f} to {high:+.2f})"
    return cell


def _listened(rows):
    lines = _top(LISTENED)
    for row in rows:
        cells = []
        for name in LISTENED:
            value = row.get(name)
            if value is None:
                cells.append("")
            elif name == "cents":
                cells.append(f"{value:.0f}")
            else:
                cells.append(f"{value:.0%}" if name != "envelope" else f"{value:.2f}")
        lines.append(f"{_head(row)} {' | '.join(cells)} |")
    return "\n".join(lines)


def _top(measured):
    """Return the first lines of a table, whose others begin with `_head`."""
    columns = ["voice", "sparsity", "epochs", *measured.values()]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _head(row):
    own = f"{row['sparsity']:.0%} | {row['epochs']}" if row["units"] else " | "
    return f"| {bits.method_name(row)} | {own} |"


def _same(row):
    names = ("units", "seed", "epochs", "recordings", "frames", "batch", "utterances")
    return tuple(row[name] for name in names)
