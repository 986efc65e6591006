"""transformers' common suites as a drill, and how their outcomes are judged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.integration.transformers_suites import DEPARTURES, judge, read_report

SCRIPT = Path(__file__).with_name("transformers_suites.py")


def test_a_failure_that_nobody_named_is_none_of_the_departures() -> None:
    outcomes = {"A::test_one": "passed", "A::test_two": "failed", "A::test_three_0_x": "failed"}
    verdict = judge(outcomes, {"A::test_two": "why"}, {"*::test_three_*": "on purpose"})
    assert verdict.unknown == {"A::test_two": "why"}
    assert verdict.departed == {"on purpose": ["A::test_three_0_x"]}
    assert verdict.stale == []
    assert not verdict.good


def test_a_departure_that_fails_no_more_is_told() -> None:
    outcomes = {"A::test_one": "passed", "A::test_two": "skipped", "A::test_three": "failed"}
    departures = {"A::test_two": "a", "A::test_three": "b", "A::test_gone": "c"}
    verdict = judge(outcomes, {}, departures)
    assert verdict.stale == ["A::test_gone", "A::test_two"]
    assert not verdict.good
    assert judge(outcomes, {}, {"A::test_three": "b"}).good


def test_a_run_of_nothing_is_not_good() -> None:
    assert not judge({}, {}, {}).good
    assert not judge({"A::test_one": "skipped"}, {}, {}).good


def test_a_report_is_read(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(
        '<testsuites><testsuite><testcase classname="x.y.A" name="test_one"/>'
        '<testcase classname="x.y.A" name="test_two"><failure message="no&#10;more"/></testcase>'
        '<testcase classname="x.y.A" name="test_two"/>'
        '<testcase classname="x.y.A" name="test_three"><skipped message="no GPU"/></testcase>'
        "</testsuite></testsuites>"
    )
    outcomes, said = read_report(tmp_path / "report.xml")
    assert outcomes == {
        "A::test_one": "passed",
        "A::test_two": "failed",
        "A::test_three": "skipped",
    }
    assert said == {"A::test_two": "no", "A::test_three": "no GPU"}
    assert judge(outcomes, said, {}).skipped == {"no GPU": 1}


def test_every_departure_has_a_reason_of_its_own() -> None:
    departures = yaml.safe_load(DEPARTURES.read_text(encoding="utf-8"))
    assert departures
    for pattern, reason in departures.items():
        assert "::test_" in pattern
        assert len(reason.split()) >= 5, pattern


@pytest.mark.drill
def test_the_suites_fail_where_we_depart_and_nowhere_else() -> None:
    checkout = os.environ.get("SIQVL_TRANSFORMERS")
    if not checkout:
        pytest.skip("SIQVL_TRANSFORMERS is not set: it names a checkout of transformers")
    command = [sys.executable, str(SCRIPT), "--transformers", checkout]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-3000:]
