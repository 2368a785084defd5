"""The look of the report's figures: palette, light and dark, and the way from drawing to SVG.

Matplotlib's figure objects are used without pyplot, so nothing is left open and no global state
changes. Every figure becomes an SVG whose colours follow the reader's light or dark setting.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID = "#202122", "#6e7377", "#d5d8da"
OURS_COLOUR, REFERENCE_COLOUR, PEER_COLOUR = "#0072b2", "#d55e00", "#85898c"
SIDE_LOOKS = {"long": ("v", "#009e73"), "short": ("^", "#cc79a7")}
"""Blue and vermilion, green and purple of Okabe and Ito (2008), Color Universal Design; what
stands in one plot differs in shape too."""

_DARK = {
    INK: "#e8eaec",
    MUTED: "#a4a9ad",
    GRID: "#3c4144",
    OURS_COLOUR: "#56b4e9",
    REFERENCE_COLOUR: "#e69f00",
    PEER_COLOUR: "#92979b",
}
"""What each colour becomes on a dark page: sky blue and orange of the same palette."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "date.converter": "concise",
    "svg.hashsalt": "margincast",
    "text.parse_math": False,  # a contract may be called A$B
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],  # of one width, as laid out here
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
WIDTH_INCHES = 9.0


def to_svg(draw: Callable[[], Figure]) -> str:
    """Draw a figure in the house style and write it as SVG; same figure, same text.

    Colours become custom properties, which a style element inside the SVG sets for light and dark.
    """
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A contract's name may hold letters that only the reader's fonts have.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = draw()
        # laid out once; a figure without an engine is not laid out and drawn again when written
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
        figure.set_layout_engine(None)
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for number, colour in enumerate(_DARK):
        text = text.replace(colour, f"var(--c{number})")
    light = "".join(f"--c{i}:{colour};" for i, colour in enumerate(_DARK))
    dark = "".join(f"--c{i}:{colour};" for i, colour in enumerate(_DARK.values()))
    style = (
        f"<style>:root{{{light}}}@media screen and (prefers-color-scheme:dark)"
        f"{{:root{{{dark}}}}}</style>"
    )
    opening = text.index(">") + 1
    return text[:opening] + style + text[opening:]


def new_figure(height_inches: float) -> Figure:
    """Return an empty figure of the page's width."""
    return Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")


def new_panels(
    count: int, height_inches: float, *, share_rows: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side, which share their rows unless told otherwise."""
    figure = new_figure(height_inches)
    return figure, list(figure.subplots(1, count, sharey=share_rows, squeeze=False)[0])


def name_rows(panels: Sequence[Axes], models: Sequence[str]) -> None:
    """Name the rows of panels that share them; the first model stands on top."""
    panels[0].set_yticks(range(len(models)), list(models))
    panels[0].set_ylim(len(models) - 0.5, -0.5)


def colour_of(model: str, ours: str, reference: str) -> str:
    """Return a model's colour: ours, the reference's, or that of all other peers."""
    if model == ours:
        return OURS_COLOUR
    return REFERENCE_COLOUR if model == reference else PEER_COLOUR
