"""What sparsity brings in exported models: `python -m benchmarks.export`.

`--suite=formats`: bytes, bytes after gzip and latency at batch 1 on one thread, of each
format x pattern x sparsity, beside the dense model in the same format. All cases of a
network take turns in one run; times are medians of the processor's time. Accuracy is
none of it: weights are random. `--suite=quantize`: accuracy on test data of dense and
90 % sparse networks in float32 and int8. Needs the extras `litert` and `onnx`. Results
go to docs/results/export.json; docs/deployment.md makes use of them.
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
from benchmarks.export import formats, quantized
from benchmarks.timing import machine_info

OUTPUT = RESULTS / "export.json"
SUITES = {"formats": formats, "quantize": quantized}
PACKAGES = ("ai-edge-litert", "onnx", "onnxruntime", "tf2onnx")


def main(arguments=None):
    """Run the suites, print their tables and write the JSON."""
    parser = make_parser("export", __doc__)
    parser.add_argument(
        "--suite", default=",".join(SUITES), help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, help="default: that of each data set")
    flags = parser.parse_args(arguments)
    names = split_names(parser, "suite", flags.suite, SUITES)
    require_positive(parser, flags, "rounds", "epochs")
    made = {}
    for name in names:
        made[name] = SUITES[name].run(flags)
        print(f"\n{name}\n\n{SUITES[name].table(made[name])}")
    before = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    results = before | made
    results["machine"] = machine_info(PACKAGES)
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(stoppable("export", main))
