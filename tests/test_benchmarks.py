"""The harness of the benchmarks; the numbers themselves are not tested here."""

import json
import re
from pathlib import Path

import pytest

import benchmarks
from benchmarks import speed
from benchmarks.command import stoppable
from benchmarks.timing import (
    Row,
    in_subprocess,
    interleaved,
    machine_info,
    median_ratio,
    peak_memory,
)


def fill(mebibytes):
    """Touch memory in a process of its own."""
    return len(bytearray(mebibytes * 2**20))


def test_cases_take_turns_in_rotating_order():
    order = []
    cases = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved(cases, rounds=3, warmup=1)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(
        "abc", 3
    )


def test_a_case_may_say_itself_how_long_it_took():
    seconds = interleaved({"own": lambda: 12.5, "timed": lambda: None}, rounds=2)
    assert seconds["own"] == [12.5, 12.5]
    assert max(seconds["timed"]) < 12.5


def test_ratio_is_taken_within_rounds_over_the_faster_baseline():
    seconds = {"a": [2.0, 20.0, 4.0], "b": [1.0, 10.0, 2.0], "slow": [9.0, 90.0, 9.0]}
    assert median_ratio(seconds, "a", "b", "slow") == 2.0


@pytest.mark.parametrize(
    "target, ratio, met",
    [
        ("<= 1.05", 1.05, True),
        ("<= 1.05", 1.06, False),
        (">= 2.5", 2.6, True),
        (">= 2.5", 2.4, False),
        ("<=0.5", None, False),
        (None, 3.0, None),
    ],
)
def test_targets(target, ratio, met):
    row = Row("suite", "case", 1.0, "ms", ratio=ratio, target=target)
    assert row.met is met


def test_a_target_that_is_no_bound_is_refused():
    with pytest.raises(ValueError, match="Received: target='1.05'"):
        Row("suite", "case", 1.0, "ms", target="1.05")


def test_memory_is_that_of_the_process():
    result, peak = in_subprocess(fill, 256)
    assert result == 256 * 2**20
    assert 256 * 2**20 < peak < 400 * 2**20
    # Not what the parent or an earlier child had.
    assert peak_memory(fill, 1) < 150 * 2**20


def test_a_process_that_fails_is_an_error(capfd):
    with pytest.raises(RuntimeError, match="fill failed .* Received: exit code=1"):
        in_subprocess(fill, "much")
    assert "TypeError" in capfd.readouterr().err


def test_machine_and_versions_are_known():
    info = machine_info()
    assert info["cpu"] and info["cores"] >= 1
    assert {"python", "keras", "tensorflow"} <= set(info["versions"])


def test_unknown_suites_are_refused(capsys):
    with pytest.raises(SystemExit) as error:
        speed.main(["--suites=start,sped"])
    assert error.value.code == 2
    assert "Received: 'sped'" in capsys.readouterr().err


def test_results_of_other_suites_stay(tmp_path):
    row = {"case": "a", "value": 1.0, "unit": "ms", "ratio": 1.2, "target": "<= 1.5"}
    point = {"case": "p", "value": 1.0, "unit": "ms", "detail": {"curve": "c", "x": 2}}
    for value in (1.0, 2.0):
        rows = [{**row, "suite": "start", "value": value}]
        speed.write({"start": {"rows": rows}}, tmp_path)
        speed.write(
            {"population": {"rows": [{**point, "suite": "population"}]}}, tmp_path
        )
    suites = json.loads((tmp_path / "speed.json").read_text())["suites"]
    assert list(suites) == ["population", "start"]
    assert suites["start"]["rows"][0]["value"] == 2.0
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_the_table_says_what_was_missed():
    rows = [Row("s", "case one", 1.5, "ms", 1.0, 1.5, "<= 1.05")]
    assert speed.table(rows)[1].split() == [
        *("s", "case", "one", "1.5", "ms", "1", "ms", "1.5", "<=", "1.05", "MISSED")
    ]


def test_ctrl_c_ends_a_command_with_a_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert stoppable("speed", interrupted) == 130
    assert capsys.readouterr().err == "\npython -m benchmarks.speed: stopped\n"
    assert stoppable("speed", lambda: 3) == 3


def commands():
    """Return {name: source} of all that have a command line."""
    root = Path(next(iter(benchmarks.__path__)))
    found = [*root.glob("*.py"), *root.glob("*/__main__.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in found}
    return {
        path.parent.name if path.stem == "__main__" else path.stem: text
        for path, text in texts.items()
        if "make_parser(" in text and path.stem != "command"
    }


@pytest.mark.parametrize("name", commands())
def test_every_command_can_be_stopped(name):
    last = commands()[name].rstrip().rsplit("\n", 1)[-1]
    assert re.fullmatch(rf'    sys\.exit\(stoppable\("{name}", main\)\)', last)
