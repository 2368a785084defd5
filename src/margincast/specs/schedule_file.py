"""Base schedules written as TOML, in the form in which the shipped ones are written by hand.

Responsible for the text alone: reading it back gives an equal schedule.
"""

import json
from decimal import Decimal

from margincast.specs.schedule import BaseSchedule, Tier


def schedule_toml(schedule: BaseSchedule, comment: str) -> str:
    """Return a base schedule as the text of a TOML file.

    Args:
        schedule: the base schedule.
        comment: where it comes from, for the head of the file; may have several lines.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    lines += [
        "",
        f"name = {_text(schedule.name)}",
        f"description = {_text(schedule.description)}",
    ]
    if schedule.delisted:
        lines.append(f"delisted = [{', '.join(map(_text, schedule.delisted))}]")
    for brackets in schedule.brackets:
        symbols = ", ".join(map(_text, brackets.symbols))
        lines += ["", "[[brackets]]", f"symbols = [{symbols}]", *_tiers(brackets.tiers)]
    if schedule.default is not None:
        lines += ["", "[default]", *_tiers(schedule.default.tiers)]
    return "\n".join(lines) + "\n"


def _tiers(tiers: tuple[Tier, ...]) -> list[str]:
    rows = [
        "  { "
        + ", ".join(f"{name} = {_number(getattr(tier, name))}" for name in Tier.model_fields)
        + " },"
        for tier in tiers
    ]
    return ["tiers = [", *rows, "]"]


def _number(value: float) -> str:
    """Write the decimal that a number denotes, without an exponent."""
    exact = Decimal(repr(float(value)))
    return f"{int(exact):_}" if exact == int(exact) else format(exact, "f")


def _text(value: str) -> str:
    # a basic string of TOML escapes as JSON does, and one character more
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
