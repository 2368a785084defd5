"""The guide's example prints what it says."""

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "streaming.md"


def test_the_example_runs_and_prints_what_it_says(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(GUIDE), "exec"), {})  # noqa: S102  # the page's own code
    (said,) = re.findall(r"# (\[.*\])", example)
    (printed,) = capsys.readouterr().out.splitlines()
    assert [round(value, 12) for value in eval(printed)] == eval(said)  # noqa: S307  # numbers
