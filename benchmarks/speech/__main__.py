"""How fast and how well SparseWaveRNN speaks: `python -m benchmarks.speech`.

`--suite=generation`: microseconds a sample of the whole network of 896 units, on one
core, against the dense one in the same run; results go to docs/results/speech.json.

`--suite=bits`: bits per sample of spoken digits (the Free Spoken Digit Dataset in
`--dataset`), for the mask methods at 95 and 90 % in blocks of 16 x 1 and for the dense
network, 224 units. `--suite=sizes`: 224 dense, 448 at 75 % and 896 at 94 %, which have
as many non-zeros where masks are, and 448 at 95.8 %, which has as many in all. Each run
is one of train.py; results go to docs/results/speech.jsonl, a line each, and what is
there is not run again: stopped, the same command goes on.

`--suite=sound`: what finished runs of `bits` in `--work` sound like: distances of copy
synthesis from recordings, as differences from dense with intervals, pitch, envelope,
and the share of digits that a listener hears; samples go to docs/results/speech.
"""

import json
import sys

from benchmarks.command import (
    RESULTS,
    make_parser,
    require_positive,
    split_names,
    stoppable,
)
from benchmarks.speech import bits, generation, sound
from benchmarks.timing import machine_info

OUTPUT = RESULTS / "speech.json"
RUNS = {name: (run, bits.table) for name, run in bits.SUITES.items()}
RUNS["sound"] = (sound.run, sound.table)
"""Function of the flags to rows, and of rows to their table."""

SUITES = ("generation", *RUNS)


def main(arguments=None):
    """Run the suites, print their tables and write the results."""
    parser = make_parser("speech", __doc__)
    parser.add_argument("--suite", default="generation", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="of generation; 7")
    bits.add_flags(parser)
    flags = parser.parse_args(arguments)
    names = split_names(parser, "suite", flags.suite, SUITES)
    require_positive(parser, flags, "rounds", "epochs", "seeds", "most", "utterances")
    bits.check_flags(parser, flags)
    for name in names:
        if name in RUNS:
            run, table = RUNS[name]
            print(f"\n{name}\n\n{table(run(flags))}")
            continue
        made = generation.run(flags)
        print(f"\n{name}\n\n{generation.table(made)}")
        results = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
        results |= {name: made, "machine": machine_info()}
        OUTPUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(stoppable("speech", main))
