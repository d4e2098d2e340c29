"""Maps: carry a direction, a point or a probe into another model's space."""

from em_interp.maps.agreement import Agreement
from em_interp.maps.fitting import Anchors, canonical_correlations, fit
from em_interp.maps.likeness import Likeness, Nulls, draws_for, likeness
from em_interp.maps.moments import Folds, JointMoments, merged, pooled, room
from em_interp.maps.shelf import MapCard, Maps
from em_interp.maps.similarity import SKETCH, by_depth, by_similarity, cka, cka_matrix, sketch
from em_interp.maps.spacemap import Fit, Method, Space, SpaceMap

__all__ = [
    "SKETCH",
    "Agreement",
    "Anchors",
    "Fit",
    "Folds",
    "JointMoments",
    "Likeness",
    "MapCard",
    "Maps",
    "Method",
    "Nulls",
    "Space",
    "SpaceMap",
    "by_depth",
    "by_similarity",
    "canonical_correlations",
    "cka",
    "cka_matrix",
    "draws_for",
    "fit",
    "likeness",
    "merged",
    "pooled",
    "room",
    "sketch",
]
