"""GARCH volatility of a panel: how wide the horizon is, judged from a contract's returns alone.

Each contract's returns between decisions, freed of the rhythm of the day, run through its own
GARCH filter; the square root of the variances expected over the horizon is the scale that the
GARCH peers multiply with a standardised quantile.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InsufficientHistoryError
from margincast.core.types import FloatArray
from margincast.models.closes import ContractCloses, contract_closes, most_frequent_step
from margincast.models.garch import (
    HOURS_PER_DAY,
    MICROSECONDS_PER_HOUR,
    GarchParameters,
    diurnal_factors,
    estimate_garch,
    expected_variances,
    filter_variance,
    hour_of_step,
    median_parameters,
)
from margincast.models.protocol import require_features
from margincast.models.scale import SMALLEST

MINIMUM_RETURNS = 250
"""With fewer returns a contract takes the others' median parameters alone. (An estimate that stands
alone should have 500: Hwang and Valls Pereira 2006, doi:10.1080/13518470500039436; here others
stand beside it.)"""

POOLED_RETURNS = 5000
"""Returns that the others' median parameters are worth beside a contract's own estimate. Chosen on
2021 (refitted quarterly; 0, 5000 and infinitely many at 1 h, 8 h and 24 h): pooling costs nothing
where own histories are long and gains up to 0.7 % of pinball loss where they are short."""

POOLED_SQUARES = 24
"""Returns that the others' median variance is worth where a contract has few or none."""

MICROSECONDS_PER_DAY = HOURS_PER_DAY * MICROSECONDS_PER_HOUR


@dataclass(frozen=True)
class FilterState:
    """Where a contract's filter stands at the end of training.

    Attributes:
        decided: last decision, microseconds since 1970.
        close: decision price then.
        next_variance: variance of the step after it.
    """

    decided: int
    close: float
    next_variance: float


@dataclass(frozen=True)
class GarchContract:
    """One contract's filter; returns are log returns freed of the rhythm of the day.

    Attributes:
        parameters: its own estimate averaged with the others' median, or the median alone.
        variance: mean squared return, from which the filter starts.
        own: whether it has an estimate of its own.
        state: end of training; None for a contract never seen.
    """

    parameters: GarchParameters
    variance: float
    own: bool
    state: FilterState | None = None


@dataclass
class GarchFilter:
    """GARCH(1,1) or GJR-GARCH(1,1,1) of every contract, with Student-t innovations.

    Attributes:
        asymmetric: GJR instead of GARCH.
        horizon_steps: steps between decisions that the horizon spans, at least 1.
        step: time between decisions, microseconds; fitted.
        rhythm: size of a return by hour of the day (UTC) over the average; fitted, shape (24,).
        contracts: fitted filters.
        stranger: filter of a contract never seen.
        not_converged: contracts whose estimation failed; they have the median parameters.
    """

    asymmetric: bool
    horizon_steps: int
    step: int = 0
    rhythm: FloatArray = field(default_factory=lambda: np.ones(HOURS_PER_DAY))
    contracts: dict[str, GarchContract] = field(default_factory=dict)
    stranger: GarchContract | None = None
    not_converged: tuple[str, ...] = ()

    def fit(self, frame: pd.DataFrame) -> Self:
        """Estimate the rhythm of the day and every contract's parameters.

        Args:
            frame: n decisions with ``symbol``, ``ts`` and ``close``.

        Raises:
            InsufficientHistoryError: no contract has returns enough for its own parameters.
            InputError: a column is absent.
        """
        series = dict(_closes(frame))
        self.step = most_frequent_step(series.values())
        self._measure_rhythm(series)
        per_step = {name: self._returns_per_step(one) for name, one in series.items()}
        estimates = self._estimate(per_step)
        squares = {
            name: float((values**2).mean()) for name, values in per_step.items() if len(values)
        }
        pool = median_parameters(
            [own.rescaled(squares[name] ** -0.5) for name, own in estimates.items()]
        )
        usual = float(np.median([squares[name] for name in estimates]))
        self.stranger = GarchContract(pool.rescaled(math.sqrt(usual)), usual, own=False)
        self.contracts = {}
        for name, one in series.items():
            count, own = len(per_step[name]), estimates.get(name)
            variance = squares.get(name, usual)
            if own is None:
                variance = (count * variance + POOLED_SQUARES * usual) / (count + POOLED_SQUARES)
            parameters = pool.rescaled(math.sqrt(variance))
            if own is not None:
                parameters = own.averaged(parameters, count / (count + POOLED_RETURNS))
            contract = GarchContract(parameters, variance, own=own is not None)
            last = float(self._next_variances(contract, one)[-1])
            state = FilterState(int(one.decided[-1]), float(one.close[-1]), last)
            self.contracts[name] = replace(contract, state=state)
        return self

    def volatility(self, frame: pd.DataFrame) -> FloatArray:
        """Return the volatility over the horizon of each decision, shape (n,).

        A contract whose decisions follow its training goes on from there, any other starts from
        its mean squared return. NaN where the close is not known (not finite or not positive).

        Args:
            frame: n decisions with ``symbol``, ``ts`` and ``close``, sorted by ``ts``.
        """
        if self.stranger is None:
            raise RuntimeError("the GARCH filter is not fitted; call fit first")
        result = np.full(len(frame), np.nan)
        for name, one in _closes(frame):
            contract = self.contracts.get(name, self.stranger)
            variances = self._next_variances(contract, one)
            total = np.zeros(len(variances))
            ahead = islice(expected_variances(variances, contract.parameters), self.horizon_steps)
            for step, expected in enumerate(ahead, start=1):
                hours = hour_of_step(one.decided + step * self.step)
                total += expected * self.rhythm[hours] ** 2
            result[one.rows] = np.maximum(np.sqrt(total), SMALLEST)
        return result

    def parameters(self) -> dict[str, Any]:
        """Return what was estimated and where every filter stands, JSON-like."""
        return {
            "asymmetric": self.asymmetric,
            "horizon_steps": self.horizon_steps,
            "step_microseconds": self.step,
            "rhythm": self.rhythm.tolist(),
            "contracts": {name: asdict(contract) for name, contract in self.contracts.items()},
            "stranger": None if self.stranger is None else asdict(self.stranger),
            "not_converged": list(self.not_converged),
            "without_own_parameters": [name for name, one in self.contracts.items() if not one.own],
        }

    @classmethod
    def from_parameters(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild a fitted filter from :meth:`parameters`."""

        def contract(entry: Mapping[str, Any]) -> GarchContract:
            state = entry["state"]
            return GarchContract(
                GarchParameters(**entry["parameters"]),
                entry["variance"],
                entry["own"],
                None if state is None else FilterState(**state),
            )

        stranger = record["stranger"]
        return cls(
            asymmetric=bool(record["asymmetric"]),
            horizon_steps=int(record["horizon_steps"]),
            step=int(record["step_microseconds"]),
            rhythm=np.array(record["rhythm"], dtype=np.float64),
            contracts={name: contract(entry) for name, entry in record["contracts"].items()},
            stranger=None if stranger is None else contract(stranger),
            not_converged=tuple(record["not_converged"]),
        )

    def _next_variances(self, contract: GarchContract, one: ContractCloses) -> FloatArray:
        """Variance of the step after each decision, freed of the rhythm, shape (n,)."""
        decided, close, first = one.decided, one.close, contract.variance
        state = contract.state
        follows = state is not None and state.decided < decided[0]
        if state is not None and follows:
            decided = np.append(state.decided, decided)
            close = np.append(state.close, close)
            first = state.next_variance
        returns, steps = self._returns(decided, close)
        variances = filter_variance(returns, steps, contract.parameters, first, contract.variance)
        return variances if follows else np.append(first, variances)

    def _estimate(self, per_step: Mapping[str, FloatArray]) -> dict[str, GarchParameters]:
        """Estimate the parameters of every contract with a history long enough."""
        long_enough = {
            k: values for k, values in per_step.items() if len(values) >= MINIMUM_RETURNS
        }
        estimates = {}
        for name, values in long_enough.items():
            if values.std() > 0:
                estimate = estimate_garch(values, asymmetric=self.asymmetric)
                if estimate.converged:
                    estimates[name] = estimate.parameters
        self.not_converged = tuple(name for name in long_enough if name not in estimates)
        if not estimates:
            longest = max(map(len, per_step.values()), default=0)
            failed = len(self.not_converged)
            raise InsufficientHistoryError(
                f"GARCH needs at least {MINIMUM_RETURNS:,} returns of one contract, found "
                f"{longest:,}"
                + (f", and no estimation of {failed} converged" if failed else "")
                + "; use more history or more contracts"
            )
        return estimates

    def _returns_per_step(self, one: ContractCloses) -> FloatArray:
        """Log returns freed of the rhythm; one over several steps by the square root of time."""
        returns, steps = self._returns(one.decided, one.close)
        return returns / np.sqrt(steps)

    def _returns(
        self, decided: npt.NDArray[np.int64], close: FloatArray
    ) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Log returns freed of the rhythm of the day, and the steps each spans, shape (n - 1,)."""
        steps = self._steps(decided)
        ends = decided[1:]
        factors = self.rhythm[hour_of_step(ends)]
        per_day = max(1, MICROSECONDS_PER_DAY // self.step)
        for gap in np.flatnonzero(steps != 1):
            spanned = ends[gap] - self.step * np.arange(min(steps[gap], per_day))
            factors[gap] = np.sqrt((self.rhythm[hour_of_step(spanned)] ** 2).mean())
        return np.diff(np.log(close)) / factors, steps

    def _steps(self, decided: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        steps = np.rint(np.diff(decided) / self.step).astype(np.int64)
        return np.maximum(steps, 1)

    def _measure_rhythm(self, series: Mapping[str, ContractCloses]) -> None:
        """Measure it over all contracts; over a horizon of days it evens out and is left alone."""
        self.rhythm = np.ones(HOURS_PER_DAY)
        if self.horizon_steps * self.step >= MICROSECONDS_PER_DAY:
            return
        sizes, hours, days = [], [], set()
        for one in series.values():
            single = self._steps(one.decided) == 1
            size = np.abs(np.diff(np.log(one.close)))[single]
            if len(size) and size.mean() > 0:
                ends = one.decided[1:][single]
                sizes.append(size / size.mean())
                hours.append(hour_of_step(ends))
                days.update(np.unique(ends // MICROSECONDS_PER_DAY).tolist())
        if sizes:
            self.rhythm = diurnal_factors(np.concatenate(sizes), np.concatenate(hours), len(days))


def _closes(frame: pd.DataFrame) -> Iterator[tuple[str, ContractCloses]]:
    require_features(frame, ("close",), "GARCH filter")
    return contract_closes(frame)
