"""What moved a forecast between two moments, in points of the margin, feature by feature."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from margincast.core.errors import InputError
from margincast.core.types import SIDES, Side
from margincast.jobs.console import say
from margincast.margin.change import Line
from margincast.models.attribution import explain_change
from margincast.models.horizons import HorizonForecaster
from margincast.models.margincast import MargincastForecaster
from margincast.models.parts import ONLINE, Parts, Staged, parts_of
from margincast.models.protocol import Panel, TailForecast
from margincast.serving.batch import latest_rows
from margincast.specs.serving import MarginPolicy, ModelChoice

Moment = tuple[Mapping[int, Panel], Mapping[str, object]]
"""Decisions per horizon in minutes, and the row of margin levels made of the newest."""


@dataclass(frozen=True)
class _Told:
    """What a model says of a contract's newest decision."""

    panel: Panel
    row: int
    forecast: TailForecast
    level: float

    @classmethod
    def of(
        cls,
        forecaster: HorizonForecaster,
        panels: Mapping[int, Panel],
        symbol: str,
        chosen: ModelChoice,
    ) -> "_Told":
        minutes = chosen.horizon // timedelta(minutes=1)
        panel = panels[minutes]
        newest = latest_rows(panel.frame)
        own = newest[panel.frame["symbol"].to_numpy(dtype=str)[newest] == symbol]
        return cls(panel, int(own[0]), forecaster.predict(panels)[minutes], chosen.level)

    def served(self, side: Side) -> float:
        """The forecast served: in order with those of other horizons."""
        return float(self.forecast.at(side, self.level)[self.row])

    def larger(self) -> Side:
        """The side that asks for more."""
        return max(SIDES, key=self.served)

    def parts(self, model: Staged, side: Side) -> Parts:
        """The model's own forecast, taken apart."""
        return parts_of(model, self.panel, self.row, side, self.level)[1]


def forecast_lines(
    forecaster: HorizonForecaster, policy: MarginPolicy, before: Moment, after: Moment
) -> list[Line]:
    """Split the change of a forecast; the lines add up to it, but for the last digits of floats.

    Where both sides take the larger forecast, the side that was it may differ: that part is a line
    of its own, taken at the earlier moment.

    Args:
        forecaster: one model for both moments.
        policy: says which level, horizon and side.
        before: the earlier moment.
        after: the later one, of the same contract, side and tier.

    Returns:
        None where one of them is a fallback, or the model does not show its stages.
    """
    model = forecaster.forecasters[policy.model.horizon // timedelta(minutes=1)]
    statuses = {before[1]["status"], after[1]["status"]}
    if not isinstance(model, MargincastForecaster) or "fallback" in statuses:
        return []
    symbol = str(after[1]["symbol"])
    then, now = (
        _Told.of(forecaster, panels, symbol, policy.model) for panels, _ in (before, after)
    )
    side: Side = "long" if after[1]["side"] == "long" else "short"
    lines = []
    if policy.forecast.sides == "larger":
        side, other = now.larger(), then.larger()
        if side != other:
            switch = then.served(side) - then.served(other)
            lines.append(Line("data", f"the larger side: {other} -> {side}", switch))
    try:
        change = explain_change(then.parts(model, side), now.parts(model, side))
    except InputError as error:
        say(f"the forecast's change is not split by feature: {error}")
        return []
    lines += [
        Line("model", "exceedances since the fit", points * change.reference)
        if feature == ONLINE
        else Line("data", f"feature {feature}", points * change.reference)
        for feature, points in zip(change.lines["feature"], change.lines["points"], strict=True)
        if points != 0.0
    ]
    if forecaster.monotone and len(forecaster.forecasters) > 1:
        # in order with those of other horizons, a forecast may be another horizon's
        moved = now.served(side) - change.forecast - (then.served(side) - change.reference)
        lines += [Line("model", "order between horizons", moved)] if moved != 0.0 else []
    return lines
