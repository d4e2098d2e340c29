"""A picture on the page: an SVG with what it shows, how to read it, and what would speak against it."""

import base64
from typing import NamedTuple


class Picture(NamedTuple):
    """One figure. `read`: what to see. `otherwise`: what would look different if the claim were false."""

    title: str
    svg: bytes
    read: str
    otherwise: str = ""

    @property
    def source(self) -> str:
        """The SVG as a data address: it stays inside the page, with its own names and styles."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")
