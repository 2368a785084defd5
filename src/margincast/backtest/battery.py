"""The battery: every test on every contract and side, and on all of them together.

Responsible for the table a validator reads after the verdict: which tests a margin passes, which it
fails, and which could not have told. Tests of one contract run on decisions whose outcomes do not
overlap; p-values of one test over many contracts are adjusted together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from margincast.backtest.dependence import benjamini_hochberg
from margincast.backtest.es_tests.acerbi_szekely import (
    acerbi_szekely_conditional,
    acerbi_szekely_quantile,
    acerbi_szekely_unconditional,
    minimally_biased_absolute,
    minimally_biased_relative,
)
from margincast.backtest.es_tests.costanzino_curran import costanzino_curran
from margincast.backtest.es_tests.du_escanciano import (
    du_escanciano_conditional,
    du_escanciano_unconditional,
)
from margincast.backtest.es_tests.mcneil_frey import mcneil_frey
from margincast.backtest.es_tests.nolde_ziegel import nolde_ziegel
from margincast.backtest.es_tests.severity import severity_of_forecasts
from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.scored import Decisions, Scores
from margincast.backtest.var_tests.berkowitz import berkowitz_tail, scores_of_quantiles
from margincast.backtest.var_tests.duration import weibull_duration
from margincast.backtest.var_tests.dynamic_quantile import dynamic_quantile
from margincast.backtest.var_tests.gmm_duration import (
    gmm_conditional_coverage,
    gmm_independence,
    gmm_unconditional_coverage,
)
from margincast.backtest.var_tests.independence import (
    christoffersen_conditional_coverage,
    christoffersen_independence,
)
from margincast.backtest.var_tests.multinomial import multinomial
from margincast.backtest.var_tests.proportion import exact_binomial, kupiec
from margincast.backtest.var_tests.time_between import tbf, tbfi, tuff
from margincast.backtest.var_tests.traffic_light import traffic_light
from margincast.backtest.var_tests.vqr import vqr
from margincast.backtest.var_tests.ziggel import (
    ziggel_conditional_coverage,
    ziggel_independence,
    ziggel_unconditional_coverage,
)
from margincast.backtest.verdicts import NAN, USUAL, Criterion, TestResult, Verdict, undefined
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray

FALSE_DISCOVERY_RATE = 0.05
ROUNDING = 1e-9
TRAFFIC_LIGHT = "traffic light"


class HitTest(Protocol):
    """A test of one sequence of exceedances."""

    def __call__(  # noqa: D102 (described by the class)
        self,
        hits: BoolArray,
        level: float,
        criterion: Criterion = ...,
        *,
        monte_carlo: SimulatedExceedances | None = ...,
    ) -> TestResult: ...


class PairTest(Protocol):
    """A test of forecasts of one level beside outcomes."""

    def __call__(  # noqa: D102 (described by the class)
        self,
        outcome: FloatArray,
        forecast: FloatArray,
        level: float,
        criterion: Criterion = ...,
        *,
        monte_carlo: SimulatedExceedances | None = ...,
    ) -> TestResult: ...


class ShortfallTest(Protocol):
    """A test of quantile and expected-shortfall forecasts of one level beside outcomes."""

    def __call__(  # noqa: D102 (described by the class)
        self,
        outcome: FloatArray,
        forecast: FloatArray,
        expected_shortfall: FloatArray,
        level: float,
        criterion: Criterion = ...,
        *,
        monte_carlo: SimulatedTails | None = ...,
    ) -> TestResult: ...


HIT_TESTS: tuple[HitTest, ...] = (
    exact_binomial,
    kupiec,
    tuff,
    christoffersen_independence,
    christoffersen_conditional_coverage,
    tbf,
    tbfi,
    weibull_duration,
    gmm_unconditional_coverage,
    gmm_independence,
    gmm_conditional_coverage,
    ziggel_unconditional_coverage,
    ziggel_independence,
    ziggel_conditional_coverage,
)
PAIR_TESTS: tuple[PairTest, ...] = (dynamic_quantile, vqr)
SHORTFALL_TESTS: tuple[ShortfallTest, ...] = (
    acerbi_szekely_conditional,
    acerbi_szekely_unconditional,
    acerbi_szekely_quantile,
    minimally_biased_absolute,
    minimally_biased_relative,
    mcneil_frey,
    nolde_ziegel,
)
"""Bayer and Dimitriadis' regressions are not among them: their asymptotic laws need thousands of
decisions, their simulated ones seconds a series. Call them where a series is in question."""


@dataclass(frozen=True)
class Simulated:
    """Simulations shared by all tests and series: exceedances, and how far they go."""

    exceedances: SimulatedExceedances
    tails: SimulatedTails

    @classmethod
    def of(cls, monte_carlo: SimulatedExceedances) -> "Simulated":
        """Return both kinds, with as many replications and the same seed."""
        return cls(monte_carlo, SimulatedTails(monte_carlo.replications, monte_carlo.seed))


@dataclass(frozen=True)
class Series:
    """One contract and side: T decisions in time order whose outcomes do not overlap.

    Attributes:
        symbol: the contract.
        side: of the position.
        levels: L increasing levels.
        outcome: adverse excursions, simple fractions, shape (T,).
        forecasts: quantile forecasts, shape (T, L).
        expected_shortfalls: of the same levels, shape (T, L); None for a model without.
    """

    symbol: str
    side: str
    levels: tuple[float, ...]
    outcome: FloatArray
    forecasts: FloatArray
    expected_shortfalls: FloatArray | None = None


def series_of(decisions: Decisions, scores: Scores) -> Iterator[Series]:
    """Yield every contract and side of a model, thinned to outcomes that do not overlap."""
    beyond = scores.expected_shortfalls
    for symbol, rows in decisions.independent_of.items():
        for i, side in enumerate(decisions.sides):
            yield Series(
                symbol,
                side,
                decisions.levels,
                decisions.outcomes[i, rows],
                scores.forecasts[i][:, rows].T,
                None if beyond is None else beyond[i][:, rows].T,
            )


def run_battery(
    series: Sequence[Series],
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
    on_series: Callable[[Series], None] = lambda _series: None,
) -> pd.DataFrame:
    """Run every test on every series.

    Args:
        series: of one model; see :func:`series_of`.
        criterion: what fails, and what has too little power to pass.
        monte_carlo: adds Monte-Carlo p-values, which then decide; its simulations are shared by
            all series of a sample size.
        on_series: called when a series is done.

    Returns:
        A row a series, test and level (tests of several levels stand at the lowest): ``symbol``,
        ``side``, ``level``, the fields of
        :class:`~margincast.backtest.verdicts.TestResult` with its name as ``test``, and
        ``adjusted_p``, the deciding p-value after Benjamini-Hochberg over the series of one test
        and level. A statistic beyond all simulated ones has the asymptotic p-value there if that is
        smaller: a thousand simulations cannot show one contract among sixty to be wrong.
    """
    rows: list[dict[str, Any]] = []
    simulated = None if monte_carlo is None else Simulated.of(monte_carlo)
    # sequences of one sample size one after another: their simulations are large, and kept once
    for one in sorted(series, key=lambda each: len(each.outcome)):
        for level, result in _results(one, criterion, simulated):
            rows.append({"symbol": one.symbol, "side": one.side, "level": level, **asdict(result)})
        on_series(one)
    table = pd.DataFrame(rows).rename(columns={"name": "test"})
    table["adjusted_p"] = _adjusted(table, monte_carlo)
    return table.sort_values(["symbol", "side", "level"], kind="stable", ignore_index=True)


def verdicts_by_test(table: pd.DataFrame) -> pd.DataFrame:
    """Count, a row a test and level, how many series fail, pass, or could not tell.

    ``failed_alone`` is a verdict of its own series; ``failed`` those that stand after adjustment
    for the number of series.

    Args:
        table: of :func:`run_battery`.
    """
    stands = (table["adjusted_p"] < FALSE_DISCOVERY_RATE) | (
        (table["test"] == TRAFFIC_LIGHT) & (table["verdict"] == "fail")
    )
    groups = table.assign(stands=stands).groupby(["test", "level"], sort=False)
    return pd.DataFrame(
        {
            "series": groups.size(),
            "failed": groups["stands"].sum().astype(int),
            "failed_alone": groups["verdict"].apply(lambda v: int((v == "fail").sum())),
            "no_power": groups["verdict"].apply(lambda v: int((v == "no power").sum())),
        }
    ).reset_index()


def _results(
    one: Series, criterion: Criterion, simulated: Simulated | None
) -> Iterator[tuple[float, TestResult]]:
    monte_carlo = None if simulated is None else simulated.exceedances
    for column, level in enumerate(one.levels):
        forecast = one.forecasts[:, column]
        hits = one.outcome > forecast
        yield level, _light(hits, level)
        for hit_test in HIT_TESTS:
            yield level, hit_test(hits, level, criterion, monte_carlo=monte_carlo)
        for pair_test in PAIR_TESTS:
            yield (
                level,
                _answered(
                    one,
                    column,
                    pair_test,
                    one.outcome,
                    forecast,
                    level,
                    criterion,
                    monte_carlo=monte_carlo,
                ),
            )
        if one.expected_shortfalls is not None:
            tails = None if simulated is None else simulated.tails
            for result in _of_shortfall(one, column, criterion, tails):
                yield level, result
    if len(one.levels) > 1:
        yield (
            one.levels[0],
            _answered(
                one,
                0,
                multinomial,
                one.outcome,
                one.forecasts,
                one.levels,
                criterion,
                monte_carlo=monte_carlo,
            ),
        )
        yield one.levels[0], _tail(one, criterion, monte_carlo)


def _answered(
    one: Series, column: int, test: Callable[..., TestResult], *given: object, monte_carlo: object
) -> TestResult:
    """Return a test's answer; what it refuses of a few odd rows is the reason for having none.

    The whole panel has been checked as one before; a young contract alone may look like per cent.
    """
    try:
        return test(*given, monte_carlo=monte_carlo)
    except InputError as error:
        name = getattr(test, "__name__", "test").replace("_", " ")
        hits = int((one.outcome > one.forecasts[:, column]).sum())
        return undefined(name, str(error), sample_size=len(one.outcome), exceedances=hits)


def _of_shortfall(
    one: Series, column: int, criterion: Criterion, tails: SimulatedTails | None
) -> Iterator[TestResult]:
    assert one.expected_shortfalls is not None
    level, forecast = one.levels[column], one.forecasts[:, column]
    expected = one.expected_shortfalls[:, column]
    # a product may end a rounding error below its factor; anything more is the forecast's fault
    expected = np.where(
        expected >= forecast * (1.0 - ROUNDING), np.maximum(expected, forecast), expected
    )
    below = int(((expected < forecast) | (expected <= 0.0)).sum())
    if below:
        reason = (
            f"the expected shortfall of {below:,} decisions lies below its quantile, or is zero"
        )
        hits = int((one.outcome > forecast).sum())
        yield undefined("expected shortfall", reason, sample_size=len(forecast), exceedances=hits)
        return
    for test in SHORTFALL_TESTS:
        yield _answered(
            one, column, test, one.outcome, forecast, expected, level, criterion, monte_carlo=tails
        )
    severity = severity_of_forecasts(one.outcome, forecast, expected, level)
    yield costanzino_curran(severity, level, criterion)
    yield du_escanciano_unconditional(severity, level, criterion, monte_carlo=tails)
    yield du_escanciano_conditional(severity, level, criterion, monte_carlo=tails)


def _tail(
    one: Series, criterion: Criterion, monte_carlo: SimulatedExceedances | None
) -> TestResult:
    rising = (np.diff(one.forecasts, axis=1) > 0.0).all(axis=1) & (one.forecasts[:, 0] > 0.0)
    if not rising.all():
        return undefined(
            "berkowitz tail",
            f"forecasts of {int((~rising).sum()):,} decisions do not rise from level to level",
            sample_size=len(one.outcome),
            exceedances=int((one.outcome > one.forecasts[:, 0]).sum()),
        )
    scores = scores_of_quantiles(one.outcome, one.forecasts, one.levels)
    return berkowitz_tail(scores, one.levels[0], criterion, monte_carlo=monte_carlo)


def _light(hits: BoolArray, level: float) -> TestResult:
    """Give the Basel zone the shape of a test; red fails."""
    count = int(np.count_nonzero(hits))
    light = traffic_light(count, hits.size, level)
    verdict: Verdict = "fail" if light.zone == "red" else "pass"
    reason = f"{light.zone}; yellow from {light.yellow_from}, red from {light.red_from}"
    return TestResult(
        TRAFFIC_LIGHT, count, 0, light.tail_probability, NAN, hits.size, count, verdict, reason
    )


def _adjusted(table: pd.DataFrame, monte_carlo: SimulatedExceedances | None) -> FloatArray:
    """Adjust the deciding p-values of each test and level over its series; NaN where none."""
    asymptotic = table["p_value"].to_numpy(np.float64)
    values = table["monte_carlo_p_value"].fillna(table["p_value"]).to_numpy(np.float64)
    if monte_carlo is not None:
        beyond = values <= 1.0 / (1.0 + monte_carlo.replications)
        values = np.where(beyond, np.fmin(values, asymptotic), values)
    # a zone is a rule, not a test: it stands as it is
    values = np.where(table["test"] == TRAFFIC_LIGHT, np.nan, values)
    adjusted = np.full(len(table), np.nan)
    for rows in table.groupby(["test", "level"]).indices.values():
        known = np.asarray(rows)[values[rows] >= 0.0]
        if known.size:
            adjusted[known] = benjamini_hochberg(values[known])
    return adjusted
