"""Figures in the style of posexp, which a notebook shows without pyplot: its list of open figures is the caller's."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from posexp.output.style import STYLE


@contextmanager
def in_style() -> Iterator[None]:
    """Draw in the style of posexp in the block."""
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the font lacks some scripts
        yield


class StyledFigure(Figure):
    """A figure of matplotlib that is its own PNG in a notebook."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        with in_style():
            FigureCanvasAgg(self).print_png(png)
        return png.getvalue()
