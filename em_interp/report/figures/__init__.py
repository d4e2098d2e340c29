"""The study's figures: each from records alone, as SVG, with its controls on the same scale."""

from em_interp.report.figures.conditions import main_figure

__all__ = ["main_figure"]
