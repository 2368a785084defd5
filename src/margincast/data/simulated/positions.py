"""Open positions of the simulated market, and how their liquidation adds to the adverse excursion.

The positions of one side and leverage have liquidation prices spread evenly, in logs, over a band
as wide as the class's distance to liquidation, 1 / leverage - maintenance margin rate. A price
that moves into the band liquidates the part it has run over: orders that sell (of longs) or buy
(of shorts) and press the price further, linearly in their size over the depth of the book, a
pressure that dies out exponentially as the book refills (Obizhaeva and Wang 2013,
doi:10.1016/j.finmar.2012.09.001). What the pressure runs over in the next substep is liquidated in
turn: a cascade. Nothing here is random: given the price before feedback, all of it follows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.types import BoolArray, FloatArray
from margincast.data.simulated.contracts import ContractParameters
from margincast.data.simulated.parameters import MarketParameters

IntArray = npt.NDArray[np.int64]

# A long is liquidated below its band's edge, a short above: with prices and edges of shorts under
# a minus sign, one inequality serves both. Axis "sides" is long, short.
_SIGN = np.array([[1.0], [-1.0]])


@dataclass(frozen=True)
class PositionState:
    """Leveraged positions, and the pressure their liquidation has left on the price.

    Attributes:
        pressure: part of the log price that is liquidation pressure, shape (rows, ...).
        size: open positions, contracts of the underlying, shape (rows, sides, classes, ...).
        edge: log of the liquidation price that the price would reach first, same shape.
    """

    pressure: FloatArray
    size: FloatArray
    edge: FloatArray


@dataclass(frozen=True)
class Liquidations:
    """Liquidation orders, in order of time; each array of shape (orders,).

    Attributes:
        minute: index of the minute.
        substep: index of the substep in the minute.
        row: index of the path's row.
        is_sell: whether the order sells, that is, closes a long.
        size: contracts of the underlying.
    """

    minute: IntArray
    substep: IntArray
    row: IntArray
    is_sell: BoolArray
    size: FloatArray


@dataclass(frozen=True)
class PressedPaths:
    """Price paths with feedback.

    Attributes:
        log_price: shape (rows, minutes, substeps).
        states: positions at each minute's open, last axis of length minutes + 1; only the last
            minute's close, of length 1, where states were not kept.
        liquidations: the orders; none where states were not kept.
    """

    log_price: FloatArray
    states: PositionState
    liquidations: Liquidations


class PositionLaw:
    """The constants of positions and liquidations, for some contracts of a market.

    Args:
        parameters: the market.
        contracts: the contracts, one for each row of a path.
        path_count: paths; rows are paths x contracts.
    """

    def __init__(
        self,
        parameters: MarketParameters,
        contracts: tuple[ContractParameters, ...],
        path_count: int,
    ) -> None:
        classes = parameters.leverage_classes
        self.substeps = parameters.substeps_per_minute
        leverage = np.array([each.leverage for each in classes])
        self.width = 1.0 / leverage - parameters.maintenance_margin_rate
        # The average position is liquidated one width away from its entry.
        self.nearest = 0.5 * self.width
        self.kept = 0.5 ** (1.0 / np.array([each.half_life_minutes for each in classes]))
        self.fade = 0.5 ** (1.0 / (parameters.impact_half_life_minutes * self.substeps))
        share = np.array([each.share for each in classes])
        sides = np.array([[parameters.long_share], [1.0 - parameters.long_share]])
        contracts_open = np.array(
            [contract.open_interest_usd / contract.start_price_usd for contract in contracts]
        )
        targets = contracts_open[:, np.newaxis, np.newaxis] * sides * share
        self.target = np.tile(targets, (path_count, 1, 1))

    def settled(self, log_price: FloatArray, listed: BoolArray) -> PositionState:
        """Return positions as after a long time at one price, none where not listed; (rows,)."""
        trigger = _SIGN * log_price[:, np.newaxis, np.newaxis] - self.nearest
        size = np.where(listed[:, np.newaxis, np.newaxis], self.target, 0.0)
        return PositionState(np.zeros_like(log_price), size, _SIGN * trigger)


def run_positions(
    law: PositionLaw,
    initial: PositionState,
    unpressed: FloatArray,
    impact_per_usd: FloatArray,
    listed: BoolArray,
    *,
    keep: bool,
) -> PressedPaths:
    """Run positions, liquidations and their pressure along price paths.

    Args:
        law: the constants.
        initial: positions at the start.
        unpressed: log price without liquidation pressure, shape (rows, minutes, substeps).
        impact_per_usd: log price move of a liquidation order of one USD in each minute, shape
            (rows, minutes).
        listed: whether positions are opened in a minute, shape (rows, minutes).
        keep: whether to keep all minutes' states and the liquidation orders.

    Returns:
        The paths with feedback.
    """
    row_count, minute_count, substeps = unpressed.shape
    log_price = np.empty((row_count, minute_count, substeps))
    fading = law.fade ** np.arange(1, substeps + 1)
    pressure = initial.pressure.copy()
    size = initial.size.copy()
    trigger = _SIGN * initial.edge
    opened_when_listed = (1.0 - law.kept) * law.target
    always_listed = bool(listed.all())
    orders: list[tuple[IntArray, ...]] = []
    order_sizes: list[FloatArray] = []
    shape = (*size.shape, minute_count + 1 if keep else 1)
    pressures, sizes, triggers = np.empty((row_count, shape[-1])), np.empty(shape), np.empty(shape)

    for minute in range(minute_count):
        if keep:
            pressures[:, minute], sizes[..., minute], triggers[..., minute] = (
                pressure,
                size,
                trigger,
            )
        points = unpressed[:, minute] + pressure[:, np.newaxis] * fading
        worst = np.stack([points.min(axis=1), -points.max(axis=1)], axis=1)
        hit = (worst[..., np.newaxis] < trigger).any(axis=(1, 2))
        before, pressure = pressure, pressure * fading[-1]
        if hit.any():
            rows = np.flatnonzero(hit)
            state = (before[rows], size[rows], trigger[rows])
            liquidated = _liquidate(
                law, state, unpressed[rows, minute], impact_per_usd[rows, minute]
            )
            points[rows], pressure[rows], size[rows], trigger[rows], closed = liquidated
            if keep:
                found = np.nonzero(closed)
                orders.append((np.full(len(found[0]), minute), found[0], rows[found[1]], found[2]))
                order_sizes.append(closed[found])
        log_price[:, minute] = points

        # Some close of their own accord, others open at the minute's close.
        opened = opened_when_listed
        if not always_listed:
            opened = opened * listed[:, minute, np.newaxis, np.newaxis]
        size *= law.kept
        size += opened
        new_share = np.divide(opened, size, out=np.ones_like(size), where=size > 0.0)
        fresh = _SIGN * points[:, -1, np.newaxis, np.newaxis] - law.nearest
        trigger += new_share * (fresh - trigger)

    pressures[:, -1], sizes[..., -1], triggers[..., -1] = pressure, size, trigger
    states = PositionState(pressures, sizes, _SIGN[..., np.newaxis] * triggers)
    return PressedPaths(log_price, states, _liquidations(orders, order_sizes))


def _liquidate(
    law: PositionLaw,
    state: tuple[FloatArray, FloatArray, FloatArray],
    unpressed: FloatArray,
    impact_per_usd: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Run one minute, substep by substep, in rows where something is liquidated.

    Returns:
        Log price (rows, substeps), then pressure, size and trigger at the minute's end, then the
        sizes closed (substeps, rows, sides, classes).
    """
    pressure, size, trigger = state
    row_count, substeps = unpressed.shape
    points = np.empty((row_count, substeps))
    closed = np.zeros((substeps, *size.shape))
    for substep in range(substeps):
        pressure = pressure * law.fade
        reached = unpressed[:, substep] + pressure
        run_over = trigger - _SIGN * reached[:, np.newaxis, np.newaxis]
        if (run_over > 0.0).any():
            part = np.minimum(np.maximum(run_over, 0.0) / law.width, 1.0)
            closed[substep] = part * size
            size = size - closed[substep]
            # Those left stand next in line, from the price reached to a width beyond.
            trigger = trigger - np.maximum(run_over, 0.0)
            sold, bought = closed[substep].sum(axis=-1).T
            pressure = pressure - impact_per_usd * np.exp(reached) * (sold - bought)
        points[:, substep] = unpressed[:, substep] + pressure
    return points, pressure, size, trigger, closed


def _liquidations(
    orders: list[tuple[IntArray, ...]], order_sizes: list[FloatArray]
) -> Liquidations:
    if not orders:
        none = np.empty(0, np.int64)
        return Liquidations(none, none, none, none.astype(bool), none.astype(np.float64))
    minute, substep, row, side = (np.concatenate(part) for part in zip(*orders, strict=True))
    return Liquidations(minute, substep, row, side == 0, np.concatenate(order_sizes))
