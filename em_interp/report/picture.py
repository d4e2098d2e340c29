"""A picture on the page: an SVG, how to read it, and what would speak against the claim."""

import base64
from typing import NamedTuple


class Picture(NamedTuple):
    """One figure. `read`: what to see. `otherwise`: what would differ if the claim were false."""

    title: str
    svg: bytes
    read: str
    otherwise: str = ""

    @property
    def source(self) -> str:
        """The SVG as a data address: it stays inside the page, with its own names and styles."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")
