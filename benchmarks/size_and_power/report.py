"""Tables of size and power, as Markdown."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from benchmarks.size_and_power.series import Truth
from benchmarks.size_and_power.study import SIZE, Cell, Share

MOSTLY_UNDEFINED = 0.5
"""Share of series without a statistic from which a share of rejections is not shown."""


def size_table(cells: Sequence[Cell]) -> str:
    """Per cent of true margins rejected, asymptotic p-value / Monte-Carlo one."""

    def both(cell: Cell) -> str:
        simulated = "-" if cell.monte_carlo is None else _one_digit(cell.monte_carlo)
        return f"{_one_digit(cell.asymptotic)} / {simulated}"

    return _table([cell for cell in cells if cell.truth == SIZE], both)


def power_table(cells: Sequence[Cell], truth: Truth) -> str:
    """Per cent of wrong margins rejected, by Monte Carlo where there is one."""
    return _table(
        [cell for cell in cells if cell.truth == truth],
        lambda cell: f"{100.0 * cell.decisive.share:.0f}",
    )


def largest_errors(cells: Sequence[Cell], truths: Iterable[Truth]) -> str:
    """Say how sure the figures of some truths are."""
    wanted = set(truths)
    errors = [
        100.0 * cell.decisive.standard_error
        for cell in cells
        if cell.truth in wanted and cell.undefined < MOSTLY_UNDEFINED
    ]
    if not errors or np.isnan(errors).all():
        return "one batch: no standard error"
    return (
        f"standard errors: median {np.nanmedian(errors):.1f}, largest {np.nanmax(errors):.1f} "
        "percentage points"
    )


def outside(cells: Sequence[Cell], points: float) -> list[str]:
    """Name true margins rejected further from 5 % than this, by more than two standard errors."""
    found = []
    for cell in cells:
        if cell.truth != SIZE or cell.undefined >= MOSTLY_UNDEFINED:
            continue
        share = cell.decisive
        distance = abs(share.share - 0.05)
        if distance > points and distance > points + 2.0 * share.standard_error:
            found.append(
                f"{cell.test} at T = {cell.sample_size}, {cell.level:g}: "
                f"{_one_digit(share)} ± {100.0 * share.standard_error:.1f} %"
            )
    return found


def _one_digit(share: Share) -> str:
    return f"{100.0 * share.share:.1f}"


def _table(cells: Sequence[Cell], show: Callable[[Cell], str]) -> str:
    columns = sorted({(cell.level, cell.sample_size) for cell in cells})
    at = {(cell.test, cell.level, cell.sample_size): cell for cell in cells}
    names = list(dict.fromkeys(cell.test for cell in cells))
    lines = [
        "| test | " + " | ".join(f"{level:g}, {size}" for level, size in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name in names:
        shown = []
        for level, size in columns:
            cell = at.get((name, level, size))
            hidden = cell is None or cell.undefined >= MOSTLY_UNDEFINED
            shown.append("-" if hidden or cell is None else show(cell))
        lines.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)
