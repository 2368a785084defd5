"""Known weaknesses of the locked packages, from the package index's advisories.

Responsible for an honest answer: "nothing found" counts only for packages that were looked up.
Where the advisories cannot be reached the audit is skipped, and says why. Run by ``make audit``.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
TIMEOUT_S = 300


def main() -> int:
    """Audit the lock; 1 where a package has a known weakness."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip",
        "--require-hashes", "--progress-spinner", "off", "--format", "json",
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603  # our own command
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        report = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        print(f"audit skipped: no answer from the advisories within {TIMEOUT_S} s")
        return 0
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        print(f"audit skipped: pip-audit found no advisories to ask ({last})")
        return 0
    code, lines = judged(report)
    print("\n".join(lines))
    return code


def judged(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Return exit code and text of a report of pip-audit (``--format json``)."""
    packages = report["dependencies"]
    skipped = [one for one in packages if "skip_reason" in one]
    weak = [one for one in packages if one.get("vulns")]
    lines = [
        f"{one['name']} {one['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for one in weak
        for found in one["vulns"]
    ]
    looked_up = len(packages) - len(skipped)
    if not looked_up:
        reason = skipped[0]["skip_reason"] if skipped else "the lock names no package"
        return 0, [f"audit skipped: none of {len(packages)} packages could be looked up ({reason})"]
    lines.append(f"{looked_up} of {len(packages)} packages looked up, {len(weak)} with a weakness")
    return int(bool(weak)), lines


if __name__ == "__main__":
    sys.exit(main())
