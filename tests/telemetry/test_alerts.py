"""The alert rules that come along, played by promtool."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

import cloaca
from cloaca.telemetry.watched import Watched

RULES = files("cloaca.telemetry") / "alerts.yml"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here")


def promtool(folder: Path, *words: str) -> str:
    done = subprocess.run(["promtool", *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_rules_are_rules_and_say_what_they_mean_to_say(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(RULES.read_text())
    (tmp_path / "played.yml").write_text((Path(__file__).parent / "alerts_test.yml").read_text())
    assert "13 rules found" in promtool(tmp_path, "check", "rules", "--lint-fatal", "alerts.yml")
    assert "SUCCESS" in promtool(tmp_path, "test", "rules", "played.yml")


def test_each_metric_of_the_rules_is_one_that_a_runner_tells() -> None:
    with cloaca.DefaultRunner(":memory:") as runner:
        known = set()
        for family in Watched(runner).families():
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}
            known |= {family.name + end for end in ends[family.kind]}
    expressions = re.findall(r"expr: (?:\|\n)?(.*?)\n +(?:for|labels):", RULES.read_text(), re.DOTALL)
    named = {name for text in expressions for name in re.findall(r"cloaca_\w+", text)}
    assert len(named) == 15
    assert named <= known
