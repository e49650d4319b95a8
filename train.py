"""Train a sparse model of images or speech: weights by gradient, masks as you choose.

    python train.py
    python train.py --dataset=mnist --model=lenet --sparsity=0.95
    python train.py --mask_optimizer=none --sparsity=0
    python train.py --dataset=recordings/ --model=sparse_wavernn --sparsity=0.95

The first trains on handwritten digits in about a minute; the third is the dense model
to compare with; the last learns a voice from a folder (see docs/speech.md). A run that
was stopped goes on when the same command is given again. Exit codes: 0 finished, 1 a
disk, a network or a data set is missing, 2 a flag or an environment variable is wrong,
130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import contextlib
import os
import signal
import sys

from absl import flags

# Both are read when they load, which is after the flags are known to be right.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"


def define_flags():
    """Return the flags with their defaults; what follows from others is None."""
    f = flags.FlagValues()
    text, whole, real, switch = (
        lambda name, default, note, define=define: define(
            name, default, note, flag_values=f
        )
        for define in (
            flags.DEFINE_string,
            flags.DEFINE_integer,
            flags.DEFINE_float,
            flags.DEFINE_bool,
        )
    )
    text(
        "dataset",
        "digits",
        "digits, any image data set of tensorflow-datasets, a folder of recordings, or "
        "ljspeech",
    )
    text("data_dir", None, "where data sets are, or $KERAS_ES_DATA_DIR")
    text(
        "model",
        None,
        "{models}; default by data set",
    )
    real("sparsity", None, "share of zeros in masked weights, in [0, 1); default 0.9")
    text("block_shape", "", "size of blocks, ROWSxCOLUMNS, like 16x1; empty for none")
    text(
        "allocation",
        "square_root",
        "sparsity of the layers: square_root, erk or uniform",
    )
    text(
        "mask_optimizer",
        "guided_es",
        "{mask_optimizers}, or none for a dense model",
    )
    whole("population_size", None, "members in a step; default by mask_optimizer")
    text("optimizer", "adam", "Keras optimizer of the weights")
    real("learning_rate", None, "at the start, falls to 0; default by data set")
    whole("batch_size", None, "examples in a step; default by data set")
    whole("epochs", None, "passes over the data; default by data set")
    whole("seed", 0, "seed of weights, masks, noise and the order of the data")
    text("jit_compile", "auto", "whether XLA compiles the step: auto, true or false")
    text("options", "", "NAME=VALUE,NAME=VALUE of what data or model take; see below")
    text(
        "strategy",
        "none",
        "none, mirrored, multi_worker (see TF_CONFIG) or tpu (in bfloat16)",
    )
    whole("virtual_devices", None, "try mirrored: so many replicas on the CPU")
    text("tpu", "local", "name or grpc:// address of the TPU; local on its own machine")
    text("workdir", None, "folder of the run; default runs/ and what the flags say")
    switch("help", False, "show this and exit")
    return f


def parse(argv):
    """Return the flags of a command line.

    Raises:
        absl.flags.Error: If a flag is unknown, or its value cannot be read.
    """
    f = define_flags()
    refuse_more(read_flags(f, argv))
    return f


def read_flags(f, argv):
    """Let flags have the values of a command line; return what is no flag.

    Raises:
        absl.flags.Error: If a flag is unknown, or its value cannot be read.
    """
    # A flag of absl's own that lets typos of others pass.
    if any(a.lstrip("-").startswith("undefok=") for a in argv[1:]):
        raise flags.Error("Unknown command line flag 'undefok'")
    try:
        return f(argv)[1:]
    except flags.IllegalFlagValueError as error:
        given = str(error).removeprefix("flag ").partition(": ")[0]
        kind = f[given.removeprefix("--").partition("=")[0]].flag_type()
        expected = {"int": "an integer", "float": "a number"}.get(kind, "true or false")
        raise flags.Error(f"expected {expected}; received {given}") from error


def refuse_more(rest):
    """Refuse what is no flag."""
    if rest:
        raise flags.Error(f"expected flags only, received {rest[0]!r}")


def help_text():
    """Return the help: one line for each flag."""
    with quiet_start():
        import models
        from keras_es import optimizers
        from keras_es.runs.options import OPTIONS

    known = {
        "models": ", ".join(models.ALL),
        "mask_optimizers": ", ".join(optimizers.OPTIMIZERS),
    }
    f = define_flags()
    lines = []
    for name in f:
        default = f[name].default
        shown = f" (default {default})" if default not in (None, "", False) else ""
        lines.append(f"  --{name:<16} {f[name].help.format(**known)}{shown}")
    lines += ["", "Options, as --options=units=224,frames=10:"]
    lines += [f"  {name:<18} {option.note}" for name, option in OPTIONS.items()]
    return f"{__doc__}\nFlags:\n" + "\n".join(lines)


@contextlib.contextmanager
def quiet_start():
    """Hide what the native parts of TensorFlow print while they load.

    They print several lines in any case, and before logging can be configured; what is
    wrong comes as an exception all the same.
    """
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def run(f):
    """Train, or go on, or show the result of a run that is finished."""
    with quiet_start():
        import keras
        import tensorflow as tf

        import models
        from keras_es.distribution import strategies, workers
        from keras_es.runs import model, settings, tasks, train
        from keras_es.runs.workdir import Workdir

        settings.check(f, list(models.ALL))
        strategy = strategies.make(
            f.strategy, virtual_devices=f.virtual_devices, tpu=f.tpu
        )
        tf.config.list_logical_devices()
    if f.strategy == "tpu":
        keras.config.set_dtype_policy("mixed_bfloat16")
    data = tasks.load(
        f.dataset,
        f.data_dir,
        f.model,
        models.ALL,
        settings.given_options(f),
    )
    config = settings.resolve(f, data, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(config["seed"])
    folder = settings.workdir_name(f, config)
    with workers.losses_named(strategy):
        with strategy.scope():
            built = model.build(config, data, models.ALL[config["model"]])
        with Workdir(folder, config, workers.is_chief(strategy)) as workdir:
            train.run(workdir, built, data)


def exit_code(name, command, argv, stopped):
    """Call a command and return its exit code; what a user can mend is one line.

    Args:
        name: Of the script, with which the line begins.
        command: Function of the command line.
        argv: The command line.
        stopped: What the line says after Ctrl-C or SIGTERM, if the exception does not
            say it itself, by an attribute `line`.
    """

    def say(line):
        print(f"{name}: {' '.join(str(line).split())}", file=sys.stderr)

    signal.signal(signal.SIGTERM, _terminate)
    try:
        command(argv)
        return 0
    except flags.Error as error:
        say(f"{error} (see --help)")
        return 2
    except KeyboardInterrupt as stop:
        say(getattr(stop, "line", stopped))
        return 128 + (stop.args or [signal.SIGINT])[0]
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        more = "; the same command goes on from there" if error.exit_code > 128 else ""
        say(f"{error}{more}")
        return error.exit_code


def _terminate(signum, frame):
    raise KeyboardInterrupt(signum)


def command(argv):
    """Run one command line."""
    # A log file is complete up to the last line even if the process is killed.
    sys.stdout.reconfigure(line_buffering=True)
    f = parse(argv)
    if f.help:
        print(help_text())
    else:
        run(f)


def main(argv):
    """Run one command line and return the exit code."""
    return exit_code("train.py", command, argv, "stopped; the same command goes on")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
