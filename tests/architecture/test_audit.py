"""The audit says nothing of packages that it could not look up."""

import importlib.util
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / ".ci" / "audit.py"


@pytest.fixture(scope="module")
def judged():
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.judged


SOUND = {"name": "numpy", "version": "2.4.6", "vulns": []}
WEAK = {
    "name": "jinja2",
    "version": "2.4",
    "vulns": [{"id": "PYSEC-2014-8", "fix_versions": ["2.7.2"]}, {"id": "X-1", "fix_versions": []}],
}
UNKNOWN = {"name": "own", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([SOUND, UNKNOWN], 0, ["1 of 2 packages looked up, 0 with a weakness"]),
        (
            [SOUND, WEAK],
            1,
            [
                "jinja2 2.4: PYSEC-2014-8, mended in 2.7.2",
                "jinja2 2.4: X-1, mended in no version yet",
                "2 of 2 packages looked up, 1 with a weakness",
            ],
        ),
        # pip-audit itself calls this "No known vulnerabilities found"
        ([UNKNOWN], 0, ["audit skipped: none of 1 packages could be looked up (not found)"]),
        (
            [],
            0,
            ["audit skipped: none of 0 packages could be looked up (the lock names no package)"],
        ),
    ],
)
def test_only_what_was_looked_up_counts(judged, packages, code, said):
    assert judged({"dependencies": packages}) == (code, said)


def test_ci_audits_what_is_locked():
    assert "\nmake audit ||" in (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    recipe = (CHECKOUT / "Makefile").read_text(encoding="utf-8").split("\naudit:")[1]
    assert recipe.splitlines()[1].strip() == "$(BIN)/python .ci/audit.py"
    assert "\npip-audit==" in (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
