"""Tiers from a margin curve: the fewest brackets that pay for every notional and little more.

Responsible for edges and rates of a base schedule. A curve says which margin closing each notional
asks for; brackets turn it into a margin that is continuous in notional, whose rates do not fall,
and that never lies below the curve.

Given the edges, each bracket's rate is the least on the publication grid that, with the brackets
below it, pays the curve at every notional of the bracket and is no smaller than the rate before.
Where the curve is convex no other rates charge less at any edge, but for rounding. The edges are
found by dynamic programming over candidate edges and counts of brackets; partial lists of edges
with the same last edge and count compete by their excess, and the ``KEPT`` best go on, because what
is above the curve at an edge changes what comes after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.margin.rounding import rounded_up
from margincast.specs.tiers import TierShape

KEPT = 200
"""Partial lists that go on from an edge; with 16 edges (five decades of 1-2-5) all that matter."""
POINTS_IN_A_DECADE = 24
_NOISE = 1e-12
"""Relative error of a rate's floating-point arithmetic; it takes no step of the grid."""


@dataclass(frozen=True, eq=False)
class MarginCurve:
    """The margin that closing a position asks for.

    Attributes:
        notional_usd: rising, above 0, USD, shape (n,).
        margin_usd: above 0, USD, shape (n,).

    Raises:
        InputError: shapes differ, notionals do not rise, or a value is not finite or not above 0.
    """

    notional_usd: FloatArray
    margin_usd: FloatArray

    def __post_init__(self) -> None:
        notional, margin = self.notional_usd, self.margin_usd
        if notional.ndim != 1 or notional.shape != margin.shape or not notional.size:
            raise InputError(
                f"a margin curve is two lists of one length, found shapes {notional.shape} and "
                f"{margin.shape}"
            )
        for name, values in (("notional_usd", notional), ("margin_usd", margin)):
            if not np.all(np.isfinite(values) & (values > 0.0)):
                raise InputError(f"a margin curve's {name} must be finite and above 0")
        if np.any(np.diff(notional) <= 0.0):
            raise InputError("a margin curve's notionals must rise")


@dataclass(frozen=True)
class Fit:
    """Brackets over a curve.

    Attributes:
        edges_usd: where the brackets end, rising, USD.
        rates: their maintenance margin rates, multiples of the grid's step that do not fall.
        mean_excess: margin over curve, minus 1, on average over the curve's notionals.
    """

    edges_usd: tuple[float, ...]
    rates: tuple[float, ...]
    mean_excess: float


@dataclass(frozen=True)
class Choice:
    """The brackets chosen, and what they were chosen against.

    Attributes:
        fit: the brackets.
        best: the brackets that would have been chosen without earlier ones.
        kept: the earlier edges stand.
        within: the mean excess is at most what was asked for.
    """

    fit: Fit
    best: Fit
    kept: bool
    within: bool


@dataclass(frozen=True, eq=False)
class _Partial:
    """Lists of brackets up to one edge, best first, shape (lists,); ``edges`` (lists, count)."""

    excess: FloatArray
    margin_usd: FloatArray
    rate: FloatArray
    edges: FloatArray
    rates: FloatArray


def notionals_usd(shape: TierShape) -> FloatArray:
    """Return the notionals at which a curve is asked for: evenly in logarithms, and all edges."""
    decades = np.log10(shape.largest_usd / shape.smallest_usd)
    count = int(np.ceil(decades * POINTS_IN_A_DECADE)) + 1
    even = np.geomspace(shape.smallest_usd, shape.largest_usd, count)
    # the ends exactly, and no point a rounding error beside an edge
    edges = np.array(shape.edges_usd())
    beside = np.isclose(even[:, None], edges, rtol=1e-9).any(axis=1)
    return np.unique(np.concatenate((even[~beside], edges, [shape.smallest_usd])))


def choose_tiers(
    curve: MarginCurve,
    shape: TierShape,
    mmr_step: float,
    previous_edges_usd: tuple[float, ...] | None = None,
) -> Choice:
    """Return the fewest brackets within the mean excess, or the earlier ones while they are good.

    Where even ``max_brackets`` exceed it, those with the least excess are chosen, and the choice
    says so. Earlier edges stand, with today's rates, while there are at most ``max_brackets``, the
    last is ``largest_usd``, they keep the mean excess (where any brackets do) and their margin is
    on average at most ``hysteresis`` above that of the brackets they would give way to.

    Args:
        curve: from at most the first candidate edge to ``largest_usd``.
        shape: what is asked of brackets.
        mmr_step: the publication grid of rates.
        previous_edges_usd: edges in force; None where there are none.

    Raises:
        InputError: the curve does not end at ``largest_usd``, or needs a rate of 1 or more.
    """
    best = best_tiers(curve, shape, mmr_step)
    within = best.mean_excess <= shape.mean_excess
    if previous_edges_usd is not None and _usable(previous_edges_usd, shape):
        earlier = tiers_on(previous_edges_usd, curve, mmr_step)
        dearer = (1.0 + earlier.mean_excess) / (1.0 + best.mean_excess) - 1.0
        good = not within or earlier.mean_excess <= shape.mean_excess
        if good and dearer <= shape.hysteresis:
            return Choice(earlier, best, kept=True, within=within)
    return Choice(best, best, kept=False, within=within)


def best_tiers(curve: MarginCurve, shape: TierShape, mmr_step: float) -> Fit:
    """Return the fewest brackets within the mean excess, else those with the least excess.

    Of as many brackets those with the least excess.

    Args:
        curve: see :func:`choose_tiers`.
        shape: what is asked of brackets.
        mmr_step: the publication grid of rates.

    Raises:
        InputError: see :func:`choose_tiers`.
    """
    _require_end(curve, shape.largest_usd)
    least: _Partial | None = None
    points = len(curve.notional_usd)
    for lists in _by_count(curve, np.array(shape.edges_usd()), shape.max_brackets, mmr_step):
        if least is None or lists.excess[0] < least.excess[0]:
            least = lists
        if lists.excess[0] / points <= shape.mean_excess:
            break
    assert least is not None
    return _fit(least, points)


def tiers_on(edges_usd: tuple[float, ...], curve: MarginCurve, mmr_step: float) -> Fit:
    """Return the brackets with given edges: the least rates, one bracket after another.

    Args:
        edges_usd: rising, the last where the curve ends.
        curve: the margin that is asked for.
        mmr_step: the publication grid of rates.

    Raises:
        InputError: the curve does not end at the last edge, or needs a rate of 1 or more.
    """
    _require_end(curve, edges_usd[-1])
    lists, floor = _nothing(), 0.0
    for edge in edges_usd:
        lists = _extended(lists, floor, edge, curve, mmr_step)
        floor = edge
    return _fit(lists, len(curve.notional_usd))


def _by_count(
    curve: MarginCurve, edges: FloatArray, max_brackets: int, mmr_step: float
) -> Iterator[_Partial]:
    """Yield the lists of one bracket, of two and so on, each from the least excess."""
    ends = len(edges)
    layer = {0: _nothing()}
    floors = np.concatenate(([0.0], edges))
    for _ in range(min(max_brackets, ends)):
        grown: dict[int, list[_Partial]] = {}
        for start, lists in layer.items():
            for end in range(start + 1, ends + 1):
                more = _extended(lists, float(floors[start]), float(floors[end]), curve, mmr_step)
                grown.setdefault(end, []).append(more)
        layer = {end: _best_of(parts) for end, parts in grown.items() if end < ends}
        yield _best_of(grown[ends])


def _nothing() -> _Partial:
    zero, none = np.zeros(1), np.empty((1, 0))
    return _Partial(zero, zero, zero, none, none)


def _extended(
    lists: _Partial, floor: float, edge: float, curve: MarginCurve, mmr_step: float
) -> _Partial:
    """Add one bracket to every list: the least rate on the grid that pays for its notionals."""
    first, last = np.searchsorted(curve.notional_usd, [floor, edge], side="right")
    above, asked = curve.notional_usd[first:last] - floor, curve.margin_usd[first:last]
    needed = ((asked - lists.margin_usd[:, None]) / above).max(axis=1, initial=mmr_step)
    rate = np.maximum(lists.rate, rounded_up(needed * (1.0 - _NOISE), mmr_step))
    margin = lists.margin_usd[:, None] + rate[:, None] * above
    excess = lists.excess + (margin / asked - 1.0).sum(axis=1)
    return _Partial(
        # a rate of 1 is none: such brackets are chosen only where there are no others
        np.where(rate < 1.0, excess, np.inf),
        lists.margin_usd + rate * (edge - floor),
        rate,
        np.column_stack((lists.edges, np.full(len(rate), edge))),
        np.column_stack((lists.rates, rate)),
    )


def _best_of(parts: list[_Partial]) -> _Partial:
    excess = np.concatenate([part.excess for part in parts])
    chosen = np.argsort(excess, kind="stable")[:KEPT]
    return _Partial(
        excess[chosen],
        np.concatenate([part.margin_usd for part in parts])[chosen],
        np.concatenate([part.rate for part in parts])[chosen],
        np.concatenate([part.edges for part in parts])[chosen],
        np.concatenate([part.rates for part in parts])[chosen],
    )


def _fit(lists: _Partial, points: int) -> Fit:
    edges, rates = lists.edges[0].tolist(), lists.rates[0].tolist()
    if np.isinf(lists.excess[0]):
        raise InputError(
            f"the margin curve asks for a rate of {rates[-1]:g} up to {edges[-1]:,.0f} USD, and a "
            "maintenance margin rate lies below 1; end the tiers at a smaller notional"
        )
    return Fit(tuple(edges), tuple(rates), float(lists.excess[0]) / points)


def _usable(edges_usd: tuple[float, ...], shape: TierShape) -> bool:
    return len(edges_usd) <= shape.max_brackets and edges_usd[-1] == shape.largest_usd


def _require_end(curve: MarginCurve, largest_usd: float) -> None:
    end = float(curve.notional_usd[-1])
    if end != largest_usd:
        raise InputError(
            f"the margin curve ends at {end:,.0f} USD, the tiers at {largest_usd:,.0f} USD; both "
            "must end at one notional"
        )
