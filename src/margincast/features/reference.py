"""The page that lists every feature: what a margin's model may see, from the functions themselves.

``docs/features.md`` is this text, and a test holds it to that, so that the page cannot fall behind
the code. Written by ``python -m margincast.features.reference > docs/features.md``.
"""

import inspect
import sys

from margincast.features.library import LIBRARY, Family, FeatureFunction
from margincast.features.plan import FAMILIES

SOURCES = FAMILIES

_FAMILIES: dict[Family, tuple[str, str]] = {
    "bars": ("Bars", "known at the bar's close"),
    "derivatives": ("Derivatives", "from bars, and states known by their close"),
    "implied_vol": ("Implied volatility", "of the leader, from an index known by the bar's close"),
    "options": ("Options", "of the leader, from the option chain known by the bar's close"),
    "book": ("Order book", "from snapshots known by the decision, reduced to each interval"),
    "trades": ("Trade flow", "from trades known by the decision, reduced to each interval"),
    "market": ("Market", "over all contracts at the same decision"),
    "calendar": ("Calendar", "known always"),
}

_ARGUMENTS = {
    "windows": "one column a window",
    "values": "one column a value",
    "columns": "one column a column it reads",
    "pairs": "one column a pair of columns it reads",
    "columns and windows": "one column a column it reads and window",
    "nothing": "one column",
}


def feature_page() -> str:
    """Return the page as Markdown."""
    lines = [
        "# Features",
        "",
        "Every function of the library, from its own documentation. A feature set names functions",
        "and what they run over ([features](../features/README.md)). Row t holds only what was",
        "known at the decision t. Unit: a *fraction* scales with the contract's volatility, a",
        "*number* does not.",
        "",
    ]
    for family, (title, known) in _FAMILIES.items():
        functions = sorted(
            (function for (of, _), function in LIBRARY.items() if of == family),
            key=lambda function: function.name,
        )
        lines += [f"## {title}", "", f"{len(functions)} functions, {known}.", ""]
        for function in functions:
            lines += _entry(function)
    return "\n".join(lines).rstrip() + "\n"


def _entry(function: FeatureFunction) -> list[str]:
    text = inspect.cleandoc(inspect.getdoc(function.build) or "")
    return [
        f"### `{function.name}`",
        "",
        f"*{function.unit}, {_ARGUMENTS[function.argument]}*",
        "",
        *text.splitlines(),
        "",
    ]


if __name__ == "__main__":
    sys.stdout.write(feature_page())
