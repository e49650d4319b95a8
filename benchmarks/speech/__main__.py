"""How fast and how well SparseWaveRNN speaks: `python -m benchmarks.speech`.

`--suite=generation`: microseconds a sample of the whole network of 896 units, on one
core, against the dense one in the same run. Results go to docs/results/speech.json;
docs/speech.md makes use of them.
"""

import json
import sys

from benchmarks.command import (
    RESULTS,
    make_parser,
    require_positive,
    split_names,
)
from benchmarks.speech import generation
from benchmarks.timing import machine_info

OUTPUT = RESULTS / "speech.json"
SUITES = {"generation": generation}


def main(arguments=None):
    """Run the suites, print their tables and write the JSON."""
    parser = make_parser("speech", __doc__)
    parser.add_argument(
        "--suite", default=",".join(SUITES), help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    flags = parser.parse_args(arguments)
    names = split_names(parser, "suite", flags.suite, SUITES)
    require_positive(parser, flags, "rounds")
    for name in names:
        made = SUITES[name].run(flags)
        print(f"\n{name}\n\n{SUITES[name].table(made)}")
        results = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
        results |= {name: made, "machine": machine_info()}
        OUTPUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
