"""Runs transformers' own common suites on SiQ-VL's classes, in a checkout of transformers.

    git clone --depth 1 --branch v5.23.0 https://github.com/huggingface/transformers
    python tests/integration/transformers_suites.py --transformers transformers

The suites need `pip install parameterized pytest`. What fails is compared with the list of
deliberate departures in `transformers_departures.yaml`, each with its reason: a failure that is not
listed, and a departure that does not fail any more, end the script with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = HERE / "transformers_suite_cases.py"
DEPARTURES = HERE / "transformers_departures.yaml"


@dataclass
class Verdict:
    """What became of a run, beside what was expected."""

    counts: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)  # by what they said
    unknown: dict[str, str] = field(default_factory=dict)  # test -> what it said
    departed: dict[str, list[str]] = field(default_factory=dict)  # reason -> tests
    stale: list[str] = field(default_factory=list)  # departures under which nothing fails

    @property
    def good(self) -> bool:
        return not self.unknown and not self.stale and self.counts["passed"] > 0


def judge(
    outcomes: Mapping[str, str], said: Mapping[str, str], departures: Mapping[str, str]
) -> Verdict:
    """Compares outcomes with the deliberate departures.

    Args:
        outcomes: test -> `passed`, `failed` or `skipped`.
        said: failed or skipped test -> the first line of what it said.
        departures: pattern of names (`*` stands for anything) -> reason.
    """
    verdict = Verdict(Counter(outcomes.values()))
    for test, outcome in outcomes.items():
        if outcome == "skipped":
            verdict.skipped[said.get(test, "")] += 1
    left = set(departures)
    for test, outcome in outcomes.items():
        if outcome != "failed":
            continue
        patterns = [one for one in departures if fnmatchcase(test, one)]
        left -= set(patterns)
        if patterns:
            verdict.departed.setdefault(departures[patterns[0]], []).append(test)
        else:
            verdict.unknown[test] = said.get(test, "")
    verdict.stale = sorted(left)
    return verdict


def run_suites(checkout: Path, options: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Runs the suites in a checkout; outcome of every test, and what those that failed said.

    Raises:
        SystemExit: the folder is no checkout, or pytest ran no test.
    """
    needed = [checkout / "tests" / name for name in ("test_modeling_common.py", "generation")]
    if missing := [str(path) for path in needed if not path.exists()]:
        raise SystemExit(
            f"{checkout} is no checkout of transformers: it has no {missing[0]} (its sdist lacks "
            "the sub-folders of tests; take the repository at the tag that is installed)"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(CASES, folder / "test_processing_siqvl.py")
        report = folder / "report.xml"
        command = [sys.executable, "-c", _RUN, str(checkout), str(ROOT), str(folder)]
        command += ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", "--tb=short", *options]
        environment = os.environ | {
            "SIQVL_MODEL_TESTS": str(ROOT / "tests" / "model"),
            "TRANSFORMERS_TINY_MODEL_PATH": str(folder / "made"),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        subprocess.run(command, cwd=checkout, env=environment, check=False)
        if not report.is_file():
            raise SystemExit("pytest wrote no report: see above")
        return read_report(report)


#: sys.path: the checkout's `tests`, then our siqvl; whatever else pytest would put there follows.
_RUN = """
import sys
checkout, root, folder, *options = sys.argv[1:]
sys.path[:0] = [checkout, root]
import pytest
raise SystemExit(pytest.main([
    f"{folder}/test_processing_siqvl.py", f"--rootdir={folder}", f"--confcutdir={folder}",
    "--import-mode=importlib", *options,
]))
"""


def read_report(report: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Reads a JUnit file: outcomes by `Class::test`, and the first lines of what they said."""
    outcomes: dict[str, str] = {}
    said: dict[str, str] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        test = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        outcome = "passed"
        for result in case:
            if result.tag in ("failure", "error"):
                outcome = "failed"
                said[test] = _first_line(result)
            elif result.tag == "skipped" and outcome != "failed":
                outcome = "skipped"
                said.setdefault(test, _first_line(result))
        if outcomes.get(test) != "failed":  # a subtest's failure is a case of its own
            outcomes[test] = outcome
    return outcomes, said


def _first_line(result: ElementTree.Element) -> str:
    return ((result.get("message") or "").strip().splitlines() or [""])[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--transformers", type=Path, required=True, help="the checkout's folder")
    parser.add_argument("options", nargs="*", help="of pytest, after --")
    given = parser.parse_args()
    outcomes, said = run_suites(given.transformers.resolve(), given.options)
    departures = yaml.safe_load(DEPARTURES.read_text(encoding="utf-8")) or {}
    verdict = judge(outcomes, said, departures)
    counts = verdict.counts
    print(f"\n{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    for reason, count in verdict.skipped.most_common():
        print(f"skipped ({count}): {reason[:160]}")
    for reason, tests in verdict.departed.items():
        print(f"departure ({len(tests)}): {reason}")
        for test in tests:
            print(f"    {test}")
    for test, line in verdict.unknown.items():
        print(f"FAILED, and is no known departure: {test}: {line[:300]}")
    for pattern in verdict.stale:
        print(f"fails no more, take it off the list: {pattern}")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    raise SystemExit(main())
