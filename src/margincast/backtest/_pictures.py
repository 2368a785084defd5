"""The pictures of the backtest report: which drawings it holds, and what to say below each."""

import base64
from dataclasses import dataclass

import numpy as np

from margincast.backtest import _plots_of_models, _plots_of_tests, _plots_over_time
from margincast.backtest._drawing import to_svg
from margincast.backtest.evaluation import Evaluation
from margincast.backtest.replay import Replay
from margincast.backtest.validation import Validation
from margincast.core.types import BoolArray


@dataclass(frozen=True)
class Picture:
    """A figure of the page, embedded as a data address."""

    title: str
    caption: str
    alternative: str
    source: str


def pictures_of(
    evaluation: Evaluation, replay: Replay, scored: BoolArray, level: float
) -> list[Picture]:
    """Draw the report's pictures.

    Args:
        evaluation: figures of the replay.
        replay: forecasts and outcomes.
        scored: the decisions that were scored, shape (n,).
        level: of the pictures over time.
    """
    panel = replay.panel.rows(scored)
    subject = evaluation.subject
    sides = replay.forecasts[subject].sides
    reference = evaluation.reference
    forecasts = {
        name: {side: replay.forecasts[name].at(side, level)[scored] for side in sides}
        for name in (subject, reference)
    }
    calendar = _plots_over_time.count_by_calendar(
        panel.decided,
        {
            name: np.column_stack([panel.outcomes[side] > own[side] for side in sides])
            for name, own in forecasts.items()
        },
        level,
    )
    symbols, symbol_of, counts = np.unique(
        panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True, return_counts=True
    )
    busiest = int(counts.argmax())
    own_rows = np.flatnonzero(symbol_of == busiest)
    one = _plots_over_time.Excursions(
        symbol=str(symbols[busiest]),
        level=level,
        decided=panel.decided[own_rows],
        outcomes={side: panel.outcomes[side][own_rows] for side in sides},
        ours={side: forecasts[subject][side][own_rows] for side in sides},
        reference={side: forecasts[reference][side][own_rows] for side in sides},
    )
    return [
        Picture(
            "Was the margin exceeded as often as promised?",
            "Exceedance ratio of every model, both sides together. The bar is the 95 % block "
            "bootstrap interval, the broken line exact coverage; right of it the forecast was too "
            "low. No bar: the test period is too short for an interval.",
            "Dots with intervals of the exceedance ratio, a row a model and a panel a level; "
            "the values stand in the table of models.",
            embed(to_svg(lambda: _plots_of_models.draw_exceedance_ratios(evaluation, subject))),
        ),
        Picture(
            "Is every level as reliable as the next?",
            "Observed against promised share of outcomes beyond the forecast, a point a level; "
            f"{subject} and {reference} in colour, other models grey. On the broken line the "
            "promise is kept; above it the forecast was too low.",
            "Lines of observed against promised exceedances over the levels, a panel a side; the "
            "values stand in the tables by level.",
            embed(to_svg(lambda: _plots_of_models.draw_reliability(evaluation, subject))),
        ),
        Picture(
            "What did the protection cost?",
            f"Mean pinball loss relative to {reference}, both sides together, with one standard "
            "error by block bootstrap; shorter is better.",
            "Bars of the pinball ratio, a row a model and a panel a level; the values stand in "
            "the tables by level.",
            embed(to_svg(lambda: _plots_of_models.draw_pinball_ratios(evaluation, subject))),
        ),
        Picture(
            f"Forecast and outcome: {one.symbol}",
            f"The contract with the most scored decisions ({len(own_rows):,}), thinned for drawing "
            "to the largest value of each stretch of time, so that no peak is lost. A cross marks "
            f"an outcome beyond the {subject} forecast made for it.",
            f"Lines of the {subject} and {reference} forecasts over the realised adverse "
            f"excursion of {one.symbol}, a panel a side.",
            embed(to_svg(lambda: _plots_over_time.draw_excursions(one, subject, reference))),
        ),
        Picture(
            "When was it exceeded?",
            f"Exceedances per {calendar.unit} at level {level:g}, all contracts and sides; the "
            "black line is the count that exact coverage would have. One crash fills many "
            "overlapping decisions of many contracts, so high bars are few events, not many.",
            f"Bars of exceedances per {calendar.unit} against the nominal count; the largest is "
            f"{int(calendar.counts[subject].max()):,} against "
            f"{calendar.nominal[calendar.counts[subject].argmax()]:.0f}.",
            embed(
                to_svg(lambda: _plots_over_time.draw_calendar(calendar, subject, reference, level))
            ),
        ),
        Picture(
            "Which contracts stand out?",
            f"Exceedance ratio of {subject} per contract and side at level {level:g}; of more than "
            f"{_plots_over_time.MOST_CONTRACTS} contracts, the most and the least exceeded.",
            "Dots of the exceedance ratio, a row a contract, a mark a side; the values stand in "
            "the table of contracts.",
            embed(
                to_svg(
                    lambda: _plots_over_time.draw_contracts(evaluation.contracts, subject, level)
                )
            ),
        ),
    ]


def evidence_pictures(found: Validation) -> list[Picture]:
    """Draw the pictures of the validation."""
    level = float(found.tests["level"].min())
    return [
        Picture(
            "Who fails what?",
            f"Tests of {found.subject} at level {level:g}, a row a contract and side, those with "
            "most failures first. A cross stands after adjustment for the number of contracts and "
            "sides; a stroke fails on its own only, as one in twenty does by chance.",
            "Cells of test answers, a row a contract and side, a column a test; counts stand in "
            "the table of tests.",
            embed(to_svg(lambda: _plots_of_tests.draw_heat_map(found.tests, level))),
        ),
        Picture(
            "What does steadiness cost?",
            "Mean forecast against how much it rises, a dot a model; low and left is better. The "
            "accurate rise most: what of that is published is the policy's choice.",
            "Dots of mean forecast over largest rise, a dot a model; values stand in the table of "
            "procyclicality.",
            embed(
                to_svg(
                    lambda: _plots_of_tests.draw_frontier(
                        found.procyclicality, found.subject, found.reference
                    )
                )
            ),
        ),
    ]


def embed(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
