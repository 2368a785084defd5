"""The regulatory checklist: what the rules for clearing houses ask, beside what was measured.

Responsible for answering a supervisor in the rules' own order. A venue of crypto perpetuals is
seldom bound by them; they are the best description there is of what a margin model must show. What
a backtest of forecasts cannot know (governance, portfolio offsets, default funds) is said to be not
judged here, never passed.

Sources: Commission Delegated Regulation (EU) No 153/2013, articles 24 to 28; CPSS-IOSCO (2012),
Principles for financial market infrastructures, principle 6, key considerations 1 to 7.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from margincast.backtest.cells import Cell
from margincast.backtest.verdicts import USUAL
from margincast.core.time import format_duration

Answer = Literal["met", "not met", "cannot tell", "not judged here"]
YEAR = timedelta(days=365)
ASKED_LEVEL = 0.99
ASKED_LEVEL_OTC = 0.995
ASKED_LIQUIDATION = timedelta(days=2)
ASKED_BUFFER = 0.25


@dataclass(frozen=True)
class Requirement:
    """One requirement, and what was measured.

    Attributes:
        rule: where it stands.
        asks: what it asks, in our words.
        measured: what the backtest found.
        answer: whether that meets it.
    """

    rule: str
    asks: str
    measured: str
    answer: Answer


@dataclass(frozen=True)
class Circumstances:
    """What the checklist is filled from.

    Attributes:
        cells: pooled figures of the model on trial, one a level, increasing.
        horizon: liquidation horizon.
        shortest_history: history before the first forecast of the test period; None for forecasts
            that somebody else submitted.
        tested: length of the test period.
        stress_windows: known stress windows that the test period holds.
        buffer: margin buffer of the policy, a share of the margin; None without a policy.
    """

    cells: tuple[Cell, ...]
    horizon: timedelta
    shortest_history: timedelta | None
    tested: timedelta
    stress_windows: tuple[str, ...]
    buffer: float | None


def regulatory_checklist(found: Circumstances) -> tuple[Requirement, ...]:
    """Fill the checklist from measured values."""
    return (
        _confidence(found, ASKED_LEVEL, "EMIR RTS 24(1)(b)", "instruments other than OTC"),
        _confidence(found, ASKED_LEVEL_OTC, "EMIR RTS 24(1)(a)", "OTC derivatives"),
        _history(found),
        _stress(found),
        _liquidation(found),
        Requirement(
            "EMIR RTS 27",
            "offsets between instruments only where correlation is significant and reliable",
            "every contract and side is margined alone; no offset is given",
            "met",
        ),
        _procyclicality(found),
        Requirement(
            "PFMI 6.1",
            "margin commensurate with the risks of each product and market",
            "forecast per contract, side and decision; see the tables of contracts and regimes",
            _both(found, ASKED_LEVEL),
        ),
        Requirement(
            "PFMI 6.2",
            "timely and reliable prices, and a way to go on when they are not there",
            "serving falls back to the base schedule; a backtest of forecasts does not see it",
            "not judged here",
        ),
        _confidence(found, ASKED_LEVEL, "PFMI 6.3", "future exposure"),
        Requirement(
            "PFMI 6.4",
            "authority and operations for intraday margin calls",
            "a venue's own process",
            "not judged here",
        ),
        Requirement(
            "PFMI 6.5", "portfolio margin only with regard to interdependence", "none", "met"
        ),
        Requirement(
            "PFMI 6.6",
            "daily backtesting and at least monthly sensitivity analysis",
            f"this backtest covers {found.tested.days:,} days; how often it is run is the venue's",
            "not judged here",
        ),
        Requirement(
            "PFMI 6.7",
            "regular review and validation of the model",
            "this report is its evidence; who reviews it, and how often, is the venue's",
            "not judged here",
        ),
    )


def _confidence(found: Circumstances, level: float, rule: str, what: str) -> Requirement:
    asks = f"cover at least {level:.1%} of movements over the liquidation period ({what})"
    cell = _cell(found, level)
    if cell is None:
        return Requirement(rule, asks, f"no forecast at {level:g}", "not judged here")
    covered = 1.0 - cell.exceedance_ratio * (1.0 - level)
    interval = ""
    if cell.exceedance_ratio_low == cell.exceedance_ratio_low:
        low, high = cell.exceedance_ratio_low, cell.exceedance_ratio_high
        interval = f", 95 % interval {1 - high * (1 - level):.2%} to {1 - low * (1 - level):.2%}"
    return Requirement(rule, asks, f"{covered:.2%} covered{interval}", _both(found, level))


def _both(found: Circumstances, level: float) -> Answer:
    """Coverage is met where it is not provably below the level, and could have been proved."""
    cell = _cell(found, level)
    if cell is None:
        return "not judged here"
    if cell.exceedance_ratio_low != cell.exceedance_ratio_low:
        return "cannot tell"
    if cell.exceedance_ratio_low > 1.0:
        return "not met"
    return "cannot tell" if cell.exceedance_ratio_high > USUAL.detectable_ratio else "met"


def _cell(found: Circumstances, level: float) -> Cell | None:
    return next((cell for cell in found.cells if cell.level == level), None)


def _history(found: Circumstances) -> Requirement:
    rule, asks = "EMIR RTS 25(1)", "volatility from at least the latest 12 months of data"
    if found.shortest_history is None:
        return Requirement(rule, asks, "not known of submitted forecasts", "not judged here")
    days = found.shortest_history.days
    answer: Answer = "met" if found.shortest_history >= YEAR else "not met"
    return Requirement(rule, asks, f"{days:,} days before the first forecast", answer)


def _stress(found: Circumstances) -> Requirement:
    names = ", ".join(found.stress_windows)
    return Requirement(
        "EMIR RTS 25(2)",
        "a full range of market conditions, periods of stress included",
        f"the test period holds {names}" if names else "the test period holds no known stress",
        "met" if names else "not met",
    )


def _liquidation(found: Circumstances) -> Requirement:
    return Requirement(
        "EMIR RTS 26(1)(b)",
        "a liquidation period of at least two business days (five for OTC derivatives)",
        f"{format_duration(found.horizon)}: these markets trade around the clock and positions "
        "are closed by the venue without a default procedure",
        "met" if found.horizon >= ASKED_LIQUIDATION else "not met",
    )


def _procyclicality(found: Circumstances) -> Requirement:
    rule = "EMIR RTS 28(1)"
    asks = (
        "one of: a buffer of 25 % of margin that may be drawn down; 25 % weight on stressed "
        "observations; a floor from 10 years of volatility"
    )
    if found.buffer is None:
        return Requirement(rule, asks, "forecasts alone, without a policy", "not judged here")
    answer: Answer = "met" if found.buffer >= ASKED_BUFFER else "not met"
    return Requirement(rule, asks, f"the policy's buffer is {found.buffer:.0%}", answer)
