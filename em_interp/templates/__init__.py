"""Chat templates of others: rendered within bounds, or refused."""

from em_interp.templates.environment import rendered
from em_interp.templates.meter import FILTERS, METHODS

__all__ = ["FILTERS", "METHODS", "rendered"]
