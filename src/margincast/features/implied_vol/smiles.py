"""The smiles of one snapshot of an option chain: which quotes count, and what they say together.

A quote counts where it is out of the money, has a bid, and its volatility can be; a smile is known
where enough quotes on both sides of the forward lie close to one arbitrage-free curve. Everything
left out is counted. See ``docs/method/implied_volatility.md``.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from margincast.core.types import BoolArray, FloatArray
from margincast.features.implied_vol.svi import RawSVI, above_floor, fit_smiles, without_arbitrage

VOLATILITY_BOUNDS = (0.01, 10.0)
"""A fraction a year outside of this is no price of risk but an error."""

LEAST_QUOTES = 6
"""Out-of-the-money quotes a smile needs: five parameters, and one that can disagree."""

LEAST_QUOTES_A_SIDE = 2
"""Of which on each side of the forward: else the at-the-money volatility would be extrapolated."""

LARGEST_DEVIATION = 0.05
"""Share of the volatility by which the vega-weighted root mean square error of a smile that counts
may miss its quotes."""

FAR_OFF = 0.05
"""A volatility further than this from the smile of the others, without which less than a quarter of
the squared error is left, is a bad quote."""

LARGEST_SHARE_FAR_OFF = 0.1
"""Share of a smile's quotes that may be left out as bad; a smile with more fits badly instead."""

DELTA = 0.25

_CALENDAR_POINTS = 41

COUNTS = (
    "quotes",
    "quotes_expired",
    "quotes_unpriced",
    "quotes_without_bid",
    "quotes_crossed",
    "quotes_in_the_money",
    "quotes_far_off",
    "expiries",
    "expiries_thin",
    "expiries_badly_fitted",
    "expiries_with_arbitrage",
    "expiries_fitted",
    "butterflies_mended",
    "calendars_mended",
)
"""What is counted in a snapshot; quotes left out add up, each at the first reason that applies."""


@dataclass(frozen=True)
class Quotes:
    """One underlying's options at one time, one value an option, by rising expiry and strike.

    Attributes:
        years: to expiry.
        strike: in the forward's currency.
        forward: of the expiry; NaN where not known.
        volatility: implied, fraction a year; NaN where not known.
        is_call: whether the option is a call.
        bid: NaN where there is none; None where the feed gives no bids.
        ask: the same of asks.
    """

    years: FloatArray
    strike: FloatArray
    forward: FloatArray
    volatility: FloatArray
    is_call: BoolArray
    bid: FloatArray | None
    ask: FloatArray | None


@dataclass(frozen=True)
class Smiles:
    """The fitted smiles of a snapshot, by rising expiry.

    Attributes:
        years: to expiry, shape (smiles,).
        at_the_money: total variance at the forward.
        put: total variance at the strike of the 25-delta put; NaN beyond the quoted strikes.
        call: the same of the 25-delta call.
        parameters: raw SVI, one a smile.
        error: vega-weighted root mean square error, fraction a year.
        largest_error: over all quotes that count, fraction a year.
        counts: by name of ``COUNTS``.
    """

    years: FloatArray
    at_the_money: FloatArray
    put: FloatArray
    call: FloatArray
    parameters: RawSVI
    error: FloatArray
    largest_error: FloatArray
    counts: dict[str, int]


@dataclass
class _Slices:
    """Quotes that count as rows of a table, one row an expiry; weight 0 fills up short rows."""

    years: FloatArray
    k: FloatArray
    w: FloatArray
    weight: FloatArray

    def volatility_errors(self, smiles: RawSVI) -> FloatArray:
        """Fitted less quoted volatility, fraction a year; 0 where there is no quote."""
        years = self.years[:, None]
        fitted = np.sqrt(np.maximum(smiles.total_variance(self.k), 0) / years)
        return np.where(self.weight > 0, fitted - np.sqrt(self.w / years), 0.0)

    def mean_square(self, errors: FloatArray) -> FloatArray:
        """Vega-weighted mean square of volatility errors, of each expiry."""
        vega = self.weight * self.w
        return np.asarray(np.sum(vega * errors**2, axis=1) / np.sum(vega, axis=1))


def fit_snapshot(quotes: Quotes) -> Smiles:
    """Fit the smiles of one snapshot, each free of butterflies and none below the one before."""
    counts = dict.fromkeys(COUNTS, 0)
    slices = _slices(quotes, _counting(quotes, counts), counts)
    if not len(slices.years):
        nothing = np.empty(0)
        smiles = RawSVI(*np.empty((5, 0)))
        return Smiles(nothing, nothing, nothing, nothing, smiles, nothing, nothing, counts)
    raw = _fitted(slices, counts)
    kept, chosen = _free_of_arbitrage(slices, raw, counts)
    slices = _Slices(*(of[kept] for of in (slices.years, slices.k, slices.w, slices.weight)))
    errors = slices.volatility_errors(chosen)
    at_the_money = chosen.total_variance(np.zeros((len(slices.years), 1)))[:, 0]
    used = slices.weight > 0
    lowest = np.where(used, slices.k, np.inf).min(axis=1, initial=np.inf)
    highest = np.where(used, slices.k, -np.inf).max(axis=1, initial=-np.inf)
    counts["expiries_fitted"] = len(slices.years)
    return Smiles(
        slices.years,
        at_the_money,
        variance_at_delta(chosen, 1 - DELTA, lowest, highest),
        variance_at_delta(chosen, DELTA, lowest, highest),
        chosen,
        np.sqrt(slices.mean_square(errors)),
        np.abs(errors).max(axis=1, initial=0.0),
        counts,
    )


def variance_at_delta(
    smiles: RawSVI, call_delta: float, lowest: FloatArray, highest: FloatArray
) -> FloatArray:
    """Total variance at the strike whose Black-76 forward call delta N(d1) has a value.

    A put's delta is the call's less one, so the 25-delta put is the 75-delta call. On a smile free
    of butterflies d1 = -k / sqrt(w) + sqrt(w) / 2 falls in k, so there is one such strike
    (Fukasawa 2012, doi:10.1111/j.1467-9965.2011.00486.x); it is found by bisection.

    Args:
        smiles: the fitted smiles.
        call_delta: between 0 and 1.
        lowest: log-moneyness of each smile's lowest quoted strike.
        highest: of its highest.

    Returns:
        NaN where the strike lies outside of the quoted ones.
    """
    wanted = ndtri(call_delta)

    def excess(k: FloatArray) -> FloatArray:
        root = np.sqrt(np.maximum(smiles.total_variance(k[:, None])[:, 0], 1e-300))
        return np.asarray(root / 2 - k / root - wanted)

    low, high = lowest.copy(), highest.copy()
    bracketed = (excess(low) >= 0) & (excess(high) <= 0)
    for _ in range(45):
        middle = (low + high) / 2
        above = excess(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    variance = smiles.total_variance(((low + high) / 2)[:, None])[:, 0]
    return np.where(bracketed, variance, np.nan)


def _counting(quotes: Quotes, counts: dict[str, int]) -> BoolArray:
    """Which quotes count; each that does not is counted at the first reason."""
    least, most = VOLATILITY_BOUNDS
    nothing = np.zeros(len(quotes.strike), dtype=np.bool_)
    no_bid = nothing if quotes.bid is None else ~(quotes.bid > 0)
    crossed = nothing if quotes.bid is None or quotes.ask is None else quotes.bid > quotes.ask
    priced = (quotes.forward > 0) & (quotes.volatility >= least) & (quotes.volatility <= most)
    reasons = {
        "quotes_expired": ~(quotes.years > 0),
        "quotes_unpriced": ~priced,
        "quotes_in_the_money": quotes.is_call != (quotes.strike >= quotes.forward),
        "quotes_without_bid": no_bid,
        "quotes_crossed": crossed,
    }
    counts["quotes"] = len(quotes.strike)
    counting = ~nothing
    for name, bad in reasons.items():
        counts[name] = int((counting & bad).sum())
        counting &= ~bad
    return counting


def _slices(quotes: Quotes, counting: BoolArray, counts: dict[str, int]) -> _Slices:
    """Lay out the quotes of each expiry that has enough of them."""
    expiries = np.unique(quotes.years[quotes.years > 0])
    counts["expiries"] = len(expiries)
    k = np.log(quotes.strike / np.where(counting, quotes.forward, quotes.strike))
    rows: list[npt.NDArray[np.intp]] = []
    for years in expiries:
        row = np.flatnonzero(counting & (quotes.years == years))
        below, above = int((k[row] < 0).sum()), int((k[row] > 0).sum())
        if len(row) >= LEAST_QUOTES and min(below, above) >= LEAST_QUOTES_A_SIDE:
            rows.append(row)
    counts["expiries_thin"] = len(expiries) - len(rows)
    shape = (len(rows), max((len(row) for row in rows), default=0))
    table = _Slices(np.empty(len(rows)), np.zeros(shape), np.ones(shape), np.zeros(shape))
    for number, row in enumerate(rows):
        filled = slice(0, len(row))
        years = quotes.years[row[0]]
        w = quotes.volatility[row] ** 2 * years
        root = np.sqrt(w)
        table.years[number] = years
        table.k[number, filled] = k[row]
        table.w[number, filled] = w
        # vega over variance: squared errors of total variance become vega times those of volatility
        table.weight[number, filled] = np.exp(-0.5 * (root / 2 - k[row] / root) ** 2) / w
    return table


def _fitted(slices: _Slices, counts: dict[str, int]) -> RawSVI:
    """Fit, leaving out single quotes that the others contradict (changes the weights)."""
    raw = fit_smiles(slices.k, slices.w, slices.weight)
    allowed = np.floor(LARGEST_SHARE_FAR_OFF * (slices.weight > 0).sum(axis=1))
    allowed = np.maximum(allowed, 1)
    suspects = np.ones(len(slices.years), dtype=np.bool_)
    while True:
        errors = slices.volatility_errors(raw)
        pull = slices.weight * slices.w * errors**2
        worst = np.argmax(pull, axis=1)
        all_rows = np.arange(len(worst))
        enough = (slices.weight > 0).sum(axis=1) > LEAST_QUOTES
        suspects = (
            suspects
            & enough
            & (allowed > 0)
            & (pull[all_rows, worst] > 0.25 * pull.sum(axis=1))
            & (np.abs(errors[all_rows, worst]) > FAR_OFF / 2)
        )
        rows = np.flatnonzero(suspects)
        if not len(rows):
            return raw
        weight = slices.weight[rows].copy()
        weight[np.arange(len(rows)), worst[rows]] = 0
        others = _Slices(slices.years[rows], slices.k[rows], slices.w[rows], slices.weight[rows])
        again = fit_smiles(others.k, others.w, weight)
        off = np.abs(others.volatility_errors(again)[np.arange(len(rows)), worst[rows]])
        before = others.mean_square(errors[rows])
        others.weight = weight
        after = others.mean_square(others.volatility_errors(again))
        bad = (off > FAR_OFF) & (after < before / 4)
        slices.weight[rows[bad]] = weight[bad]
        allowed[rows[bad]] -= 1
        counts["quotes_far_off"] += int(bad.sum())
        suspects[rows[~bad]] = False
        parameters = raw.as_rows()
        parameters[:, rows[bad]] = again.as_rows()[:, bad]
        raw = RawSVI(*parameters)


def _free_of_arbitrage(
    slices: _Slices, raw: RawSVI, counts: dict[str, int]
) -> tuple[npt.NDArray[np.intp], RawSVI]:
    """Mend smiles, by rising expiry; those that cannot be mended or miss their quotes are out."""
    butterfly_free = raw.butterfly_free()
    kept: list[int] = []
    chosen = np.empty((5, 0))
    before: RawSVI | None = None
    quoted_before = np.empty(0)
    for number in range(len(slices.years)):
        one = slice(number, number + 1)
        used = slices.weight[number] > 0
        k, w = slices.k[number, used], slices.w[number, used]
        at, floor = np.empty(0), np.empty(0)
        if before is not None:
            # both have strikes on both sides of the forward, so that there always is a range
            low, high = max(quoted_before[0], k[0]), min(quoted_before[-1], k[-1])
            at = np.linspace(low, high, _CALENDAR_POINTS)
            floor = before.total_variance(at[None])[0]
        smile: RawSVI | None = raw[one]
        crosses = not above_floor(raw[one], at, floor)
        if crosses or not butterfly_free[number]:
            smile = without_arbitrage(
                raw[one], k, w, slices.weight[number, used], floor_at=at, floor=floor
            )
        if smile is None:
            counts["expiries_with_arbitrage"] += 1
            continue
        row = _Slices(slices.years[one], slices.k[one], slices.w[one], slices.weight[one])
        level = np.sqrt(smile.total_variance(np.zeros((1, 1)))[0, 0] / slices.years[number])
        error = np.sqrt(row.mean_square(row.volatility_errors(smile))[0])
        if not error <= LARGEST_DEVIATION * level:
            counts["expiries_badly_fitted"] += 1
            continue
        counts["butterflies_mended"] += int(not butterfly_free[number])
        counts["calendars_mended"] += int(crosses)
        kept.append(number)
        chosen = np.append(chosen, smile.as_rows(), axis=1)
        before, quoted_before = smile, k
    return np.array(kept, dtype=np.intp), RawSVI(*chosen)
