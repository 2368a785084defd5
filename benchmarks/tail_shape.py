"""Which tail above which quantile: constant, shrunk or hanging on covariates, out of sample.

Walk-forward on time before the test years, by the model's own stages: scale and quantile head are
fitted a quarter at a time, calibrated by forward chaining, and every tail is fitted to the same
excesses and scored on the quarter that follows. Compared are where the tail starts, sides apart or
together, a shrunken shape, log-linear scale and linear shape (maximum likelihood), and gradient
boosting of both (Velthoen et al. 2023, doi:10.1007/s10687-023-00473-x) by LightGBM with a custom
objective in the orthogonal parameters log(scale (1 + shape)) and shape (Chavez-Demoulin and Davison
2005, doi:10.1111/j.1467-9876.2005.00479.x). Before that a simulation in which the shape truly
varies: there a covariate shape has to win, or it is our implementation that loses.

Run: ``python benchmarks/tail_shape.py training/perp-8h.toml --data DIR``
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize

from margincast.backtest.dependence import block_bootstrap_interval
from margincast.core.types import FloatArray
from margincast.models.calibration import fit_factors
from margincast.models.folds import forward_chain
from margincast.models.head import QuantileHead
from margincast.models.protocol import Panel
from margincast.models.scale import HarScale, known_volatilities
from margincast.models.tail import fit_generalised_pareto, fit_shrunken_pareto
from margincast.scoring.pinball import pinball_loss
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.market import read_market
from margincast.training.splits import walk_forward
from margincast.training.workload import workload_of

STARTS = (0.95, 0.975, 0.99)
SERVED = (0.99, 0.995, 0.999)
HEAD_LEVELS = (0.95, 0.975, 0.99, 0.995)
TODAY = ("one a side", 0.99)
SHAPES = (-0.45, 0.9)
RIDGE = 20.0
VOLATILITY = "parkinson_volatility_"
PLAIN = ("realised_kurtosis_7d", "relative_drawdown_3d")
MORE = (
    "jump_share_7d",
    "volatility_of_volatility_7d",
    "large_move_size_7d",
    "large_move_count_7d",
    "log_volume_deviation_30d",
    "correlation_to_leader_log_return_1h_7d",
    "downside_share_7d",
    "log_return_1d",
    "hour_of_day",
)

Parameters = tuple[FloatArray, FloatArray]
"""Scale and shape of every row, shape (n,) each."""
Tail = Callable[[FloatArray], Parameters]
"""From covariates, shape (n, covariates), the side in the first column, to parameters."""


@dataclass(frozen=True)
class Excesses:
    """Relative excesses (n,), covariates (n, c) with the side first, and their days (n,)."""

    relative: FloatArray
    covariates: FloatArray
    days: npt.NDArray[np.datetime64]

    def of_side(self, side: int) -> "Excesses":
        """Keep one side's."""
        rows = self.covariates[:, 0] == side
        return Excesses(self.relative[rows], self.covariates[rows], self.days[rows])


def deviance_terms(excess: FloatArray, log_nu: FloatArray, shape: FloatArray) -> list[FloatArray]:
    """Negative log-likelihood and its slopes in log(scale (1 + shape)) and shape, (n,) each."""
    shape = np.where(np.abs(shape) < 1e-5, 1e-5, shape)
    scale = np.exp(log_nu) / (1 + shape)
    inside = np.maximum(1 + shape * excess / scale, 1e-6)
    loss = np.log(scale) + (1 + 1 / shape) * np.log(inside)
    in_nu = 1 - (1 + shape) * excess / (scale * inside)
    at_scale = -np.log(inside) / shape**2 + (1 + 1 / shape) * excess / (scale * inside)
    return [loss, in_nu, at_scale - in_nu / (1 + shape)]


def constant(fit: Callable[[Excesses], Parameters]) -> Callable[[Excesses], Tail]:
    """Make a tail of one scale and shape for all rows."""

    def fitted(sample: Excesses) -> Tail:
        scale, shape = fit(sample)
        return lambda x: (np.full(len(x), scale), np.full(len(x), shape))

    return fitted


def _most_likely(sample: Excesses) -> Parameters:
    tail = fit_generalised_pareto(sample.relative)
    return np.array(tail.scale), np.array(tail.shape)


def _shrunk(sample: Excesses) -> Parameters:
    tail = fit_shrunken_pareto(sample.relative, len(np.unique(sample.days)))
    return np.array(tail.scale), np.array(tail.shape)


def one_a_side(sample: Excesses) -> Tail:
    """Fit each side's own constant tail."""
    fits = [_most_likely(sample.of_side(side)) for side in (0, 1)]
    scales, shapes = (np.array([fit[k] for fit in fits]) for k in (0, 1))
    return lambda x: (scales[x[:, 0].astype(int)], shapes[x[:, 0].astype(int)])


def linear(*, scale: bool, shape: bool) -> Callable[[Excesses], Tail]:
    """Log-linear scale, linear shape in the side and five standardised covariates."""

    def fitted(sample: Excesses) -> Tail:
        few = slice(0, 6)
        middle = np.nanmean(sample.covariates[:, few], axis=0)
        width = np.nanstd(sample.covariates[:, few], axis=0)
        width[width == 0] = 1.0

        def design(x: FloatArray) -> FloatArray:
            # what is not known counts as average; three deviations bound what is extrapolated
            z = np.nan_to_num(np.clip((x[:, few] - middle) / width, -3, 3))
            return np.column_stack([np.ones(len(x)), z])

        matrix = design(sample.covariates)
        size = matrix.shape[1]
        start_scale, start_shape = _most_likely(sample)
        start = np.zeros(2 * size)
        start[size] = np.clip(start_shape, -0.2, 0.8)
        start[0] = np.log(start_scale * (1 + start[size]))
        free = np.r_[[True], np.full(size - 1, scale), [True], np.full(size - 1, shape)]
        penalised = np.arange(2 * size) % size > 0

        def objective(p: FloatArray) -> tuple[float, FloatArray]:
            raw = matrix @ p[size:]
            held = np.clip(raw, *SHAPES)
            loss, in_nu, in_shape = deviance_terms(sample.relative, matrix @ p[:size], held)
            slope = np.r_[matrix.T @ in_nu, matrix.T @ (in_shape * (raw == held))]
            slope += RIDGE * penalised * p
            return loss.sum() + 0.5 * RIDGE * (penalised * p**2).sum(), slope

        bounds = [(-6.0, 6.0) if wanted else (0.0, 0.0) for wanted in free]
        bounds[size] = SHAPES
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).x

        def predict(x: FloatArray) -> Parameters:
            rows = design(x)
            shapes = np.clip(rows @ found[size:], *SHAPES)
            return np.exp(rows @ found[:size]) / (1 + shapes), shapes

        return predict

    return fitted


def boosted(rounds: int, *, scale: bool, shape: bool) -> Callable[[Excesses], Tail]:
    """Gradient boosting for extremes: two trees a round, one a parameter, from the constant fit."""

    def fitted(sample: Excesses) -> Tail:
        start_scale, start_shape = _most_likely(sample)
        start_shape = np.clip(start_shape, -0.2, 0.7)
        log_nu = np.log(start_scale * (1 + start_shape))

        def objective(raw: FloatArray, _: lgb.Dataset) -> tuple[FloatArray, FloatArray]:
            shapes = np.clip(start_shape + raw[:, 1], *SHAPES)
            _, in_nu, in_shape = deviance_terms(sample.relative, log_nu + raw[:, 0], shapes)
            # expected information: diagonal in these two parameters
            information = [1 / (1 + 2 * np.maximum(shapes, -0.4)), 1 / (1 + shapes) ** 2]
            return np.column_stack([in_nu * scale, in_shape * shape]), np.column_stack(information)

        parameters = {
            "objective": objective,
            "num_class": 2,
            "num_leaves": 3,
            "learning_rate": 0.05,
            "min_data_in_leaf": max(50, len(sample.relative) // 10),
            "min_sum_hessian_in_leaf": 0.0,
            "lambda_l2": 10.0,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "feature_fraction": 0.5,
            "max_bin": 31,
            "boost_from_average": False,
            "seed": 1,
            "num_threads": 1,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        data = lgb.Dataset(sample.covariates, np.zeros(len(sample.relative)))
        booster = lgb.train(parameters, data, rounds)

        def predict(x: FloatArray) -> Parameters:
            raw = np.asarray(booster.predict(x, raw_score=True, num_threads=1))
            shapes = np.clip(start_shape + raw[:, 1], *SHAPES)
            return np.exp(log_nu + raw[:, 0]) / (1 + shapes), shapes

        return predict

    return fitted


TAILS: Mapping[str, Callable[[Excesses], Tail]] = {
    "one a side": one_a_side,
    "sides together": constant(_most_likely),
    "together, shrunk": constant(_shrunk),
    "linear scale": linear(scale=True, shape=False),
    "linear shape": linear(scale=False, shape=True),
    "linear both": linear(scale=True, shape=True),
    "boosted scale": boosted(30, scale=True, shape=False),
    "boosted shape": boosted(30, scale=False, shape=True),
    "boosted both": boosted(30, scale=True, shape=True),
    "boosted both, 100": boosted(100, scale=True, shape=True),
}


def excess_quantile(parameters: Parameters, survival: float) -> FloatArray:
    """Excess exceeded with probability ``survival``, shape (n,)."""
    scale, shape = parameters
    safe = np.where(np.abs(shape) < 1e-9, 1e-9, shape)
    return np.asarray(scale * np.expm1(-safe * np.log(survival)) / safe)


# --- simulation -----------------------------------------------------------------------------------


def simulate(count: int = 3000, repeats: int = 10) -> None:
    """Print deviance and pinball loss over the truth's where shape or scale vary, or nothing."""
    print(f"simulation: {count:,} excesses to fit, 50,000 to score, {repeats} times; 0.04 survive")
    print("truth | tail | deviance above the truth's | pinball loss over the truth's")
    for truth in ("constant", "scale varies", "shape varies"):
        above: dict[str, list[float]] = {name: [] for name in TAILS}
        ratio: dict[str, list[float]] = {name: [] for name in TAILS}
        for seed in range(repeats):
            rng = np.random.default_rng(seed)
            samples, real = zip(*(_drawn(truth, n, rng) for n in (count, 50_000)), strict=True)
            _, test = samples
            best = excess_quantile(real[1], 0.04)
            floor = pinball_loss(test.relative, best, 0.96).sum()
            least = _mean_deviance(test.relative, real[1])
            for name, fit in TAILS.items():
                made = fit(samples[0])(test.covariates)
                loss = pinball_loss(test.relative, excess_quantile(made, 0.04), 0.96).sum()
                above[name].append(_mean_deviance(test.relative, made) - least)
                ratio[name].append(loss / floor)
        for name in TAILS:
            print(f"{truth} | {name} | {np.mean(above[name]):.4f} | {np.mean(ratio[name]):.4f}")


def _drawn(truth: str, count: int, rng: np.random.Generator) -> tuple[Excesses, Parameters]:
    x = rng.normal(size=(count, 1 + 5 + len(MORE)))
    x[:, 0] = rng.integers(0, 2, count)
    shape = 0.25 + (0.25 * np.tanh(x[:, 1]) if truth == "shape varies" else np.zeros(count))
    scale = 0.35 * np.exp(0.25 * x[:, 2] if truth == "scale varies" else np.zeros(count))
    uniform = rng.uniform(size=count)
    excess = scale * np.expm1(-shape * np.log(uniform)) / shape
    days = np.datetime64("2020-01-01") + np.arange(count)
    return Excesses(excess, x, days), (scale, shape)


def _mean_deviance(excess: FloatArray, parameters: Parameters) -> float:
    scale, shape = parameters
    return float(2 * deviance_terms(excess, np.log(scale * (1 + shape)), shape)[0].mean())


# --- real data ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Decisions with raw head forecasts (n, sides, head levels) and covariates (n, c)."""

    panel: Panel
    outcomes: FloatArray
    raw: FloatArray
    covariates: FloatArray


def _stages(job: TrainingJob, panel: Panel) -> Callable[[Panel], Sample]:
    chosen, sides = job.model, job.target.sides
    scale = HarScale(chosen.scale.columns, chosen.scale.seasonal_harmonics, chosen.scale.ridge)
    width = scale.fit(panel.frame, panel.log_range).predict(panel.frame)
    fitting = panel.rows(np.isfinite(width))
    head = QuantileHead(chosen.head, panel.units, sides, HEAD_LEVELS, 1)
    head.fit(fitting.frame, width[np.isfinite(width)], fitting.outcomes)

    def forecast(asked: Panel) -> Sample:
        there = asked.rows(np.isfinite(scale.predict(asked.frame)))
        wide = scale.predict(there.frame)
        outcomes = np.stack([there.outcomes[side] for side in sides], axis=1)
        raw = np.maximum(head.predict(there.frame, wide) * wide[:, None, None], 1e-12)
        return Sample(there, outcomes, raw, _covariates(there.frame, wide))

    return forecast


def _covariates(frame: pd.DataFrame, scale: FloatArray) -> FloatArray:
    windows = tuple(f"{VOLATILITY}{window}" for window in ("1h", "1d", "30d"))
    log_volatility = np.log(known_volatilities(frame[list(windows)].to_numpy(np.float64), windows))
    slopes = np.diff(log_volatility, axis=1)
    plain = frame[[*PLAIN, *MORE]].to_numpy(np.float64)
    return np.column_stack([np.log(scale), slopes, plain])


def _joined(parts: list[Sample]) -> Sample:
    whole = Panel(
        pd.concat([part.panel.frame for part in parts], ignore_index=True),
        parts[0].panel.units,
        {},
        np.concatenate([part.panel.log_range for part in parts]),
        np.concatenate([part.panel.label_end for part in parts]),
    )
    outcomes, raw, covariates = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("outcomes", "raw", "covariates")
    )
    return Sample(whole, outcomes, raw, covariates)


def quarters(
    job: TrainingJob, panel: Panel, overlap: float, start: datetime, end: datetime
) -> Iterator[tuple[Sample, Sample]]:
    """Yield for each quarter (chained history, quarter), head forecasts calibrated."""
    chosen = job.model
    folds = walk_forward(
        panel.decided,
        panel.label_end,
        panel.labelled,
        start=start,
        end=end,
        refit_every="1q",
        embargo=job.backtest.embargo,
        window=chosen.window,
    )
    for fold in folds:
        training = panel.rows(fold.training)
        thinned = training.thinned(chosen.stride, chosen.minimum_rows)
        chain = forward_chain(thinned.decided, thinned.label_end, chosen.calibration.folds)
        parts = [_stages(job, thinned.rows(past))(thinned.rows(block)) for past, block in chain]
        history = _joined(parts)
        test = _stages(job, thinned)(panel.rows(fold.test & panel.labelled))
        decided = history.panel.decided
        factors = fit_factors(
            history.outcomes[:, :, None] / history.raw,
            history.panel.frame["symbol"].to_numpy(dtype=object),
            HEAD_LEVELS,
            span=(decided.max() - decided.min()).item(),
            prior_span=chosen.calibration.prior,
            overlap=max(1.0, overlap * len(thinned) / len(training)),
            prior_exceedances=chosen.calibration.contract_prior,
        )
        for sample in (history, test):
            sample.raw[:] *= np.exp(factors.logs(sample.panel.frame["symbol"]))
            sample.raw.sort(axis=2)
        print(
            f"{fold.start:%F}: {len(history.raw):,} to fit, {len(test.raw):,} to test", flush=True
        )
        yield history, test


def _flat(sample: Sample, start: float) -> tuple[FloatArray, FloatArray, Excesses]:
    """Return anchors (2 n,), outcomes (2 n,) and all relative excesses, sides one after another."""
    anchor = sample.raw[:, :, HEAD_LEVELS.index(start)].T.ravel()
    outcome = sample.outcomes.T.ravel()
    rows = len(sample.raw)
    side = np.repeat([0.0, 1.0], rows)
    covariates = np.column_stack([side, np.tile(sample.covariates, (2, 1))])
    days = np.tile(sample.panel.decided.astype("datetime64[D]"), 2)
    return anchor, outcome, Excesses(outcome / anchor - 1, covariates, days)


@dataclass
class Record:
    """One tail's forecasts and expected shortfalls by level, and deviances, quarter by quarter."""

    quantiles: dict[float, list[FloatArray]]
    beyond: dict[float, list[FloatArray]]
    deviances: list[FloatArray]


def study(job: TrainingJob, panel: Panel, overlap: float, start: datetime, end: datetime) -> None:
    """Fit and score every tail and print the table."""
    records = {
        (name, at): Record({k: [] for k in SERVED}, {k: [] for k in SERVED}, [])
        for at in STARTS
        for name in TAILS
    }
    trees: dict[float, list[FloatArray]] = {level: [] for level in SERVED[:-1]}
    outcomes, days, sides = [], [], []
    for history, test in quarters(job, panel, overlap, start, end):
        for level, kept in trees.items():
            kept.append(_flat(test, level)[0])
        for at in STARTS:
            _, _, past = _flat(history, at)
            rows = past.relative > 0
            past = Excesses(past.relative[rows], past.covariates[rows], past.days[rows])
            anchor, outcome, now = _flat(test, at)
            for name, fit in TAILS.items():
                made = fit(past)(now.covariates)
                record = records[name, at]
                exceeded = now.relative > 0
                scale, shape = (values[exceeded] for values in made)
                log_nu = np.log(scale * (1 + shape))
                loss = deviance_terms(now.relative[exceeded], log_nu, shape)[0]
                record.deviances.append(2 * loss)
                for level in SERVED:
                    excess = excess_quantile(made, (1 - level) / (1 - at))
                    mean = np.maximum(made[0] + made[1] * excess, 0) / (1 - made[1])
                    record.quantiles[level].append(anchor * (1 + excess))
                    record.beyond[level].append(anchor * (1 + excess + mean))
        outcomes.append(outcome)
        days.append(now.days)
        sides.append(now.covariates[:, 0])
    _print_table(records, trees, *(np.concatenate(x) for x in (outcomes, days, sides)))


def _print_table(
    records: dict[tuple[str, float], Record],
    trees: dict[float, list[FloatArray]],
    outcome: FloatArray,
    days: npt.NDArray[np.datetime64],
    side: FloatArray,
) -> None:
    print("level | start | tail | pinball over today's | matched | exceedances | ES | deviance")
    for level in SERVED:
        today = np.concatenate(trees.get(level, records[TODAY].quantiles[level]))
        base = pinball_loss(outcome, today, level)
        floor = pinball_loss(outcome, _matched(outcome, today, side, level), level).sum()
        for (name, start), record in [(("trees", level), None), *records.items()]:
            if record is None:
                if level not in trees:
                    continue
                forecast, beyond, deviance = today, np.full(len(today), np.nan), np.nan
            elif start == level and name != TODAY[0]:
                continue  # the threshold itself: the trees'
            else:
                forecast = np.concatenate(record.quantiles[level])
                beyond = np.concatenate(record.beyond[level])
                deviance = float(np.concatenate(record.deviances).mean())
            loss = pinball_loss(outcome, forecast, level)
            interval = block_bootstrap_interval(
                loss,
                base,
                blocks=days,
                generator=np.random.default_rng(1),
                run_length=5,
                replications=1000,
            )
            matched = pinball_loss(outcome, _matched(outcome, forecast, side, level), level).sum()
            over = outcome > forecast
            print(
                f"{level:g} | {start:g} | {name} | {interval.estimate:.4f} [{interval.lower:.4f}, "
                f"{interval.upper:.4f}] | {matched / floor:.4f} | {over.mean() / (1 - level):.2f} "
                f"| {outcome[over].sum() / beyond[over].sum():.3f} | {deviance:.4f}"
            )


def _matched(
    outcome: FloatArray, forecast: FloatArray, side: FloatArray, level: float
) -> FloatArray:
    """Scale each side so that its coverage is exact afterwards: what is left is ranking."""
    scores = outcome / forecast
    long, short = (np.quantile(scores[side == number], level) for number in (0, 1))
    return forecast * np.where(side == 0, long, short)


def main() -> None:
    """Simulate, then walk forward on real data."""
    parser = argparse.ArgumentParser(description="tails: constant, shrunk, with covariates")
    parser.add_argument("spec", type=Path, help="training spec")
    parser.add_argument("--data", type=Path, required=True, help="folder of market data")
    parser.add_argument("--start", default="2020-07-01", help="first quarter")
    parser.add_argument("--end", default="2022-01-01", help="exclusive end")
    parser.add_argument("--set", action="append", default=[], help="overrides of the training spec")
    arguments = parser.parse_args()

    simulate()
    job = load_spec(arguments.spec, TrainingJob, arguments.set)
    feature_set = load_spec(arguments.spec.resolve().parents[1] / job.features.set, FeatureSet)
    market = read_market(job.data, feature_set, arguments.data.resolve())
    workload = workload_of(job, feature_set, market)
    end = datetime.fromisoformat(arguments.end).replace(tzinfo=UTC)
    start = datetime.fromisoformat(arguments.start).replace(tzinfo=UTC)
    ((minutes, panel),) = workload.panels.items()
    panel = panel.rows(panel.label_end < np.datetime64(end.replace(tzinfo=None)))
    study(job, panel, workload.overlap(minutes), start, end)


if __name__ == "__main__":
    main()
