"""What the command lines of the benchmarks share."""

import argparse
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def make_parser(name, doc):
    """Return the parser of `python -m benchmarks.NAME`, with its docstring as help."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def split_names(parser, flag, text, known):
    """Return the names that commas divide; end the program if one is not known."""
    names = text.split(",")
    for name in names:
        if name not in known:
            parser.error(
                f"--{flag}: expected names from {', '.join(known)}. Received: {name!r}"
            )
    return names


def require_positive(parser, flags, *names):
    """End the program if one of these flags is given and below 1."""
    for name in names:
        value = getattr(flags, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: expected at least 1. Received: {value}")


def stoppable(name, main):
    """Call the main function of `python -m benchmarks.NAME`, return its exit code.

    Ctrl-C ends it with a line and no traceback.
    """
    try:
        return main()
    except KeyboardInterrupt:
        print(f"\npython -m benchmarks.{name}: stopped", file=sys.stderr)
        return 130
