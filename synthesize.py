"""Speak: texts, or recordings again, with a voice that train.py has trained.

    python synthesize.py --model=runs/voice --mel_from=recording.wav --output=x.wav
    python synthesize.py --model=runs/voice --text_model=runs/text \\
        --text="Hello." --text="How are you?" --output=x.wav
    python synthesize.py --model=runs/voice --text_model=runs/text --export=voice/

The first is copy synthesis: the sound of the recording's own spectrogram. The second
speaks sentences, several in one batch, into x-1.wav and x-2.wav. A file grows as it is
spoken and can be played at any time, also after Ctrl-C; an older one of its name stays
until there is something to write. The last writes a SavedModel that TensorFlow serves
without this package (see docs/speech.md). Exit codes: 0 done,
1 a disk or a library is missing, 2 a flag is wrong, 130 stopped by Ctrl-C, 143 by
SIGTERM.
"""

import contextlib
import json
import os
import sys
import time

from absl import flags

from train import exit_code, quiet_start, read_flags, refuse_more

# Both are read when they load, which is after the flags are known to be right.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"


def define_flags():
    """Return the flags with their defaults."""
    f = flags.FlagValues()

    def define(kind, name, default, note):
        kind(name, default, note, flag_values=f)

    define(flags.DEFINE_string, "model", None, "workdir of a run of sparse_wavernn")
    define(flags.DEFINE_string, "text_model", None, "workdir of a run of text_to_mel")
    define(flags.DEFINE_multi_string, "text", [], "what is said; may be repeated")
    define(
        flags.DEFINE_multi_string, "mel_from", [], "what is said again; may be repeated"
    )
    define(flags.DEFINE_string, "output", None, "wav file that is written")
    define(flags.DEFINE_string, "export", None, "folder of a SavedModel, in its place")
    define(flags.DEFINE_string, "speaker", None, "of the text model; default the first")
    define(flags.DEFINE_float, "speed", 1.0, "of speech; 2 is twice as fast")
    define(flags.DEFINE_integer, "seed", 0, "of what is drawn, sample by sample")
    define(flags.DEFINE_bool, "help", False, "show this and exit")
    return f


def parse(argv):
    """Return the flags of a command line.

    Raises:
        absl.flags.Error: If a flag is unknown, missing, or its value cannot be read.
    """
    f = define_flags()
    rest = read_flags(f, argv)
    if f.help:
        return f
    refuse_more(rest)
    if not f.model:
        raise flags.Error(f"expected --model, {f['model'].help}")
    if bool(f.output) == bool(f.export):
        raise flags.Error("expected either --output=FILE.wav or --export=FOLDER")
    if f.export:
        _check_unused(f, ("text", "mel_from", "speaker", "speed", "seed"), "--export")
    else:
        _check_speech(f)
    return f


def _check_unused(f, names, why):
    for name in names:
        if f[name].present:
            raise flags.Error(f"--{name} is not used with {why}")


def _check_speech(f):
    if bool(f.text) == bool(f.mel_from):
        raise flags.Error("expected either --text or --mel_from")
    if f.mel_from:
        _check_unused(f, ("text_model", "speaker", "speed"), "--mel_from")
    elif not f.text_model:
        raise flags.Error("--text needs --text_model, which makes frames of it")
    for text in f.text:
        if not text.strip():
            raise flags.Error(f"expected words, received --text={text!r}")
    if not f.output.endswith(".wav"):
        raise flags.Error(f"expected --output=FILE.wav, received --output={f.output}")
    if not 0 <= f.seed < 2**63:
        raise flags.Error(f"expected --seed in [0, 2**63), received --seed={f.seed}")
    if not 0.1 <= f.speed <= 10.0:
        raise flags.Error(f"expected --speed in [0.1, 10], received --speed={f.speed}")


def help_text():
    """Return the help: one line for each flag."""
    f = define_flags()
    lines = [f"  --{name:<12} {f[name].help}" for name in f]
    return f"{__doc__}\nFlags:\n" + "\n".join(lines)


def places(f):
    """Return the files of --output, or the folder of --export in a list.

    Raises:
        RunError: If what is there must not be replaced.
        OutputError: If it cannot be written, or there is no such user.
    """
    from keras_es import _files as files
    from models.sparse_wavernn import outputs

    if f.export:
        return [outputs.check_folder(files.expanded("export", f.export))]
    read = [files.expanded("mel_from", path) for path in f.mel_from]
    path = files.expanded("output", f.output)
    paths = outputs.names(path, len(f.text) + len(read))
    outputs.check_files(paths, read)
    return paths


def load(flag, folder, architecture):
    """Return model and settings of a run.

    Raises:
        absl.flags.Error: If there is none, or one of another model.
    """
    from keras_es import _files as files
    from keras_es._arguments import is_integer
    from keras_es.runs import checkpoints
    from keras_es.runs.errors import RunError

    given = f"--{flag}={folder}"
    path = files.expanded(flag, folder)
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = config["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise flags.Error(
            f"expected the workdir of a run of train.py, received {given}"
        ) from error
    if kind != architecture:
        raise flags.Error(
            f"expected a run of {architecture}, received {given}, of {kind}"
        )
    if not is_integer(config.get("sample_rate")) or config["sample_rate"] < 1:
        raise flags.Error(
            "expected the workdir of a run of train.py, with a sample_rate in its "
            f"config.json, received {given}"
        )
    file, _, damaged = checkpoints.latest(path / "checkpoints")
    if file is None:
        why = f" but damaged ones ({damaged[0]})" if damaged else ""
        raise RunError(f"{given} has no checkpoint yet{why}; train it for an epoch")
    return checkpoints.load(file), config


def load_text_model(folder, rate):
    """Return the layer that makes frames of texts, for a voice of that rate."""
    model, config = load("text_model", folder, "text_to_mel")
    if config["sample_rate"] != rate:
        raise flags.Error(
            f"the voice has {rate:,} samples in a second; received --text_model="
            f"{folder}, with {config['sample_rate']:,}"
        )
    return model.get_layer("text_to_mel")


def frames_of_recordings(paths, rate, hop):
    """Return the frames of recordings, a list of [frames, mels]."""
    from keras_es.datasets import audio

    found = []
    for path in paths:
        try:
            samples, _ = audio.read(path, rate)
        except (audio.BadAudioError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise flags.Error(f"cannot read --mel_from={path}: {reason}") from error
        if len(samples) < hop:
            raise flags.Error(
                f"expected at least {hop} samples at {rate:,} Hz, received "
                f"--mel_from={path} with {len(samples)}"
            )
        found.append(audio.mel_spectrogram(samples, rate).numpy())
    return found


def frames_of_texts(f, rate):
    """Return the frames of the texts, a list of [frames, mels]."""
    layer = load_text_model(f.text_model, rate)
    try:
        return layer.speak(f.text, f.speaker, f.speed)
    except ValueError as error:
        raise flags.Error(str(error)) from error


def run(f):
    """Speak all that was asked for, or write the SavedModel."""
    with quiet_start():
        import keras_es  # noqa: F401 - its classes are in the files of runs
        import models  # noqa: F401
        from models.sparse_wavernn import Generator

        paths = places(f)
        model, config = load("model", f.model, "sparse_wavernn")
        rate, hop = config["sample_rate"], model.get_layer("inputs").hop
        if f.export:
            return export(f, *paths, Generator(model), rate)
        if f.mel_from:
            mels = frames_of_recordings(f.mel_from, rate, hop)
        else:
            mels = frames_of_texts(f, rate)
        generator = Generator(model, voices=len(mels))
    return speak(paths, f.seed, generator, mels, rate)


def export(f, folder, generator, rate):
    """Write the SavedModel."""
    from keras_es import _files as files
    from models.sparse_wavernn import serving

    layer = load_text_model(f.text_model, rate) if f.text_model else None
    files.replace_folder(
        folder, lambda partial: serving.export(generator, partial, layer)
    )
    names = "generate and vocode" if layer else "vocode"
    print(f"{f.export}: {names}, {rate:,} samples in a second")


def speak(paths, seed, generator, mels, rate):
    """Write the sound of frames, all at once, piece by piece."""
    import numpy as np

    from keras_es import _files as files
    from models.sparse_wavernn.generator import side_by_side
    from models.sparse_wavernn.wav import WavFile

    longest, hop = max(map(len, mels)), generator.hop
    stream, batch = generator.stream(seed), side_by_side(mels)
    step, begun, written = generator.program.frames, time.monotonic(), []
    with contextlib.ExitStack() as stack, told(written):
        for path in paths:
            written.append(stack.enter_context(WavFile(path, rate)))
        for first in range(0, longest + 1, step):
            # The last turn has no frames left, and tells the rest.
            found = stream.feed(batch[:, first : first + step])
            if first + step > longest:
                found = np.concatenate([found, stream.finish()], axis=1)
            for file, own, mel in zip(written, found, mels, strict=True):
                with files.writing(file.path):
                    file.write(own[: len(mel) * hop - file.samples])
            show(written, mels, hop, begun)
    seconds = sum(file.seconds for file in written)
    took = time.monotonic() - begun
    names = ", ".join(map(str, paths))
    print(f"{names}: {seconds:.2f} s of sound in {took:.2f} s, compiling included")


@contextlib.contextmanager
def told(written):
    """Say of what is stopped inside how much has been written, if anything was."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if sys.stdout.isatty():
            print(flush=True)  # after the line of `show`
        begun = [file for file in written if file.samples]
        if begun:
            names = ", ".join(str(file.path) for file in begun)
            seconds = sum(file.seconds for file in begun)
            stop.line = f"stopped; {seconds:.2f} s of sound are in {names}"
        raise


def show(files, mels, hop, begun):
    """Show how far it is, in seconds of sound, where somebody looks."""
    if not sys.stdout.isatty():
        return
    done = sum(file.seconds for file in files)
    total = sum(len(mel) * hop / files[0].sample_rate for mel in mels)
    end = "\n" if done >= total else ""
    took = time.monotonic() - begun
    line = f"\r{done:.1f} of {total:.1f} s of sound, {took:.0f} s"
    print(line, end=end, flush=True)


class MissingLibraryError(Exception):
    """A library is not there; the message says how it is installed."""

    exit_code = 1


def command(argv):
    """Run one command line."""
    f = parse(argv)
    if f.help:
        print(help_text())
        return
    try:
        run(f)
    except ImportError as error:
        raise MissingLibraryError(str(error)) from error


def main(argv):
    """Run one command line and return the exit code."""
    return exit_code("synthesize.py", command, argv, "stopped before anything was said")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
