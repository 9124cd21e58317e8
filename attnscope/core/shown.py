"""The forms of a result in Python: as text, in a notebook, as a data frame."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

RENDERING = "attnscope.render.interactive"
"""The module that shows a result. It is named and not imported: rendering is above results."""


class Shown:
    """A result that prints as its table, shows itself in a notebook and converts to a data frame."""

    def __str__(self) -> str:
        """Return the table and the lines below it, as wide as the terminal."""
        return str(resolve_name(f"{RENDERING}:plain_text")(self))

    def __repr__(self) -> str:
        """Return the class and the title, since all values would fill many screens."""
        return f"<{type(self).__name__}: {getattr(self, 'title', 'two runs')}>"

    def to_dataframe(self) -> "pandas.DataFrame":
        """Return the table as a pandas DataFrame in base units: the columns and rows of the CSV, without its total.

        Raises:
            ImportError: if pandas is not installed.
        """
        return resolve_name(f"{RENDERING}:data_frame")(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Return the forms that a notebook chooses from, by media type."""
        return {"text/plain": str(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        """Return the table with bars, the pictures and the lines below."""
        return str(resolve_name(f"{RENDERING}:html")(self))
