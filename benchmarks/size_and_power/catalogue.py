"""The tests that are studied: what each reads, and how many simulations it can afford."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from benchmarks.size_and_power.panel import PooledSample
from benchmarks.size_and_power.series import Series
from scipy import special

from margincast.backtest.battery import HIT_TESTS, HitTest
from margincast.backtest.es_tests.acerbi_szekely import (
    acerbi_szekely_conditional,
    acerbi_szekely_quantile,
    acerbi_szekely_unconditional,
    minimally_biased_absolute,
    minimally_biased_relative,
)
from margincast.backtest.es_tests.bayer_dimitriadis import bayer_dimitriadis
from margincast.backtest.es_tests.costanzino_curran import costanzino_curran
from margincast.backtest.es_tests.du_escanciano import (
    du_escanciano_conditional,
    du_escanciano_unconditional,
)
from margincast.backtest.es_tests.mcneil_frey import mcneil_frey, mcneil_frey_bootstrap
from margincast.backtest.es_tests.nolde_ziegel import nolde_ziegel
from margincast.backtest.es_tests.severity import severity_of_forecasts
from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.pooled_tests import pooled_coverage, pooled_dynamics, pooled_levels
from margincast.backtest.time_blocks import RUN_DAYS
from margincast.backtest.var_tests.berkowitz import berkowitz, berkowitz_tail, scores_of_quantiles
from margincast.backtest.var_tests.dynamic_quantile import dynamic_quantile
from margincast.backtest.var_tests.loss_counts import pearson_q
from margincast.backtest.var_tests.multinomial import multinomial
from margincast.backtest.var_tests.proportion import (
    exact_binomial,
    mid_p_binomial,
    normal_binomial,
)
from margincast.backtest.var_tests.vqr import vqr
from margincast.backtest.verdicts import TestResult
from margincast.core.types import FloatArray

SHARED: Final = 999
"""Simulations of a test whose simulated statistics serve all series: its default."""

OWN: Final = 199
"""Simulations of a test that takes them anew for each series. A Monte-Carlo p-value keeps its size
with any number; 199 cost a point or two of power against 999."""


@dataclass
class Simulations:
    """Simulated correct margins that the series of one batch are held against."""

    seed: int
    exceedances: SimulatedExceedances = field(init=False)
    fewer_exceedances: SimulatedExceedances = field(init=False)
    tails: SimulatedTails = field(init=False)
    fewer_tails: SimulatedTails = field(init=False)

    def __post_init__(self) -> None:
        self.exceedances = SimulatedExceedances(SHARED, self.seed)
        self.fewer_exceedances = SimulatedExceedances(OWN, self.seed)
        self.tails = SimulatedTails(SHARED, self.seed)
        self.fewer_tails = SimulatedTails(OWN, self.seed)


@dataclass(frozen=True)
class Studied:
    """One test.

    Attributes:
        run: from a series, or a pooled sample, and the batch's simulations to the result.
        judges_size: whether it sees how far outcomes go, and so is worth studying where only
            that is wrong.
        effort: share of the replications it gets, less for slow tests.
        pooled: whether it reads a panel.
    """

    run: Callable[[Any, Simulations], TestResult]
    judges_size: bool = False
    effort: float = 1.0
    pooled: bool = False


def _of_hits(test: HitTest) -> Studied:
    def run(series: Series, simulations: Simulations) -> TestResult:
        return test(series.hits, series.level, monte_carlo=simulations.exceedances)

    return Studied(run)


def _of_pairs(test: Callable[..., TestResult], effort: float = 1.0) -> Studied:
    def run(series: Series, simulations: Simulations) -> TestResult:
        return test(
            series.outcome,
            series.forecast,
            series.level,
            monte_carlo=simulations.fewer_exceedances,
        )

    return Studied(run, effort=effort)


def _of_levels(form: str) -> Studied:
    def run(series: Series, simulations: Simulations) -> TestResult:
        return multinomial(
            series.outcome,
            series.forecasts,
            series.levels,
            form=form,  # type: ignore[arg-type]  # one of three, listed below
            monte_carlo=simulations.exceedances,
        )

    return Studied(run, judges_size=True)


def _of_tails(test: Callable[..., TestResult], effort: float = 1.0) -> Studied:
    def run(series: Series, simulations: Simulations) -> TestResult:
        return test(*_tail_of(series), monte_carlo=simulations.fewer_tails)

    return Studied(run, judges_size=True, effort=effort)


def _without_simulation(test: Callable[..., TestResult], effort: float = 1.0) -> Studied:
    def run(series: Series, _: Simulations) -> TestResult:
        return test(*_tail_of(series))

    return Studied(run, judges_size=True, effort=effort)


def _tail_of(series: Series) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    return series.outcome, series.forecast, series.expected_shortfall, series.level


def _of_severity(test: Callable[..., TestResult]) -> Studied:
    def run(series: Series, simulations: Simulations) -> TestResult:
        severity = severity_of_forecasts(*_tail_of(series))
        return test(severity, series.level, monte_carlo=simulations.tails)

    return Studied(run, judges_size=True)


def _costanzino_curran(series: Series, _: Simulations) -> TestResult:
    return costanzino_curran(severity_of_forecasts(*_tail_of(series)), series.level)


def _berkowitz(series: Series, simulations: Simulations) -> TestResult:
    return berkowitz(series.scores, monte_carlo=simulations.exceedances)


def _berkowitz_tail(series: Series, simulations: Simulations) -> TestResult:
    scores = scores_of_quantiles(series.outcome, series.forecasts, series.levels)
    return berkowitz_tail(scores, series.level, monte_carlo=simulations.exceedances)


def _pearson(series: Series, simulations: Simulations) -> TestResult:
    probabilities = special.ndtr(series.scores)
    return pearson_q(probabilities, series.levels, monte_carlo=simulations.exceedances)


def _pooled_coverage(sample: PooledSample, _: Simulations) -> TestResult:
    return pooled_coverage(sample.hits[:, 0], sample.level, sample.days, lag=RUN_DAYS)


def _pooled_levels(sample: PooledSample, _: Simulations) -> TestResult:
    return pooled_levels(sample.hits, sample.levels, sample.days, lag=RUN_DAYS)


def _pooled_dynamics(sample: PooledSample, _: Simulations) -> TestResult:
    return pooled_dynamics(
        sample.hits[:, 0], sample.level, sample.days, sample.instruments, lag=RUN_DAYS
    )


TESTS: Final[dict[str, Studied]] = {
    "exact_binomial": _of_hits(exact_binomial),
    "exact_binomial greater": _of_hits(partial(exact_binomial, alternative="greater")),
    "mid_p_binomial": _of_hits(mid_p_binomial),
    "normal_binomial": _of_hits(normal_binomial),
    **{test.__name__: _of_hits(test) for test in HIT_TESTS if test is not exact_binomial},  # type: ignore[attr-defined]  # they are functions
    "dynamic_quantile": _of_pairs(dynamic_quantile),
    "vqr score": _of_pairs(vqr),
    "vqr wald": _of_pairs(partial(vqr, form="wald"), effort=0.25),
    "multinomial nass": _of_levels("nass"),
    "multinomial pearson": _of_levels("pearson"),
    "multinomial likelihood ratio": _of_levels("likelihood ratio"),
    "pearson_q": Studied(_pearson, judges_size=True),
    "berkowitz": Studied(_berkowitz, judges_size=True),
    "berkowitz_tail": Studied(_berkowitz_tail, judges_size=True),
    "acerbi_szekely_conditional": _of_tails(acerbi_szekely_conditional),
    "acerbi_szekely_unconditional": _of_tails(acerbi_szekely_unconditional),
    "acerbi_szekely_quantile": _of_tails(acerbi_szekely_quantile),
    "minimally_biased_absolute": _of_tails(minimally_biased_absolute),
    "minimally_biased_relative": _of_tails(minimally_biased_relative),
    "mcneil_frey": _of_tails(mcneil_frey),
    "mcneil_frey_bootstrap": _without_simulation(mcneil_frey_bootstrap, effort=0.25),
    "nolde_ziegel": _of_tails(nolde_ziegel, effort=0.25),
    "nolde_ziegel general": _of_tails(partial(nolde_ziegel, moments="general"), effort=0.25),
    "nolde_ziegel understated": _of_tails(
        partial(nolde_ziegel, alternative="understated"), effort=0.25
    ),
    "nolde_ziegel general understated": _of_tails(
        partial(nolde_ziegel, moments="general", alternative="understated"), effort=0.25
    ),
    "bayer_dimitriadis strict": _without_simulation(bayer_dimitriadis, effort=0.1),
    "bayer_dimitriadis auxiliary": _without_simulation(
        partial(bayer_dimitriadis, version="auxiliary"), effort=0.1
    ),
    "bayer_dimitriadis intercept": _without_simulation(
        partial(bayer_dimitriadis, version="intercept"), effort=0.1
    ),
    "costanzino_curran": Studied(_costanzino_curran, judges_size=True, effort=0.25),
    "du_escanciano_unconditional": _of_severity(du_escanciano_unconditional),
    "du_escanciano_conditional": _of_severity(du_escanciano_conditional),
    "pooled_coverage": Studied(_pooled_coverage, effort=0.5, pooled=True),
    "pooled_levels": Studied(_pooled_levels, effort=0.5, pooled=True),
    "pooled_dynamics": Studied(_pooled_dynamics, effort=0.5, pooled=True),
}
"""By the name of the function, with the arguments that are not its defaults."""
