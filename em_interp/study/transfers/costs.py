"""What maps between two bases hold and take: bytes of their moments, operations of their fits.

Bytes of moments are exact, since they are widths, folds, kinds of row and pairs of sites multiplied
out. Operations are those of products and of decompositions of such shapes (Golub and Van Loan, 4th
edition: 9 n³ for a symmetric spectrum, 14 m n² + 8 n³ for singular vectors, 4 m n² for an
orthogonal basis, n³ / 3 for a Cholesky factor), leading terms only. All of it is float64, in the
computer's own memory. Knows widths. Knows nothing of models or studies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from em_interp.maps import SKETCH, Method, fitting, room
from em_interp.maps.likeness import draws_for
from em_interp.maps.linear import POWERS
from em_interp.transferring.alignment import ANCHORS

WIDE, NARROW = 8, 4  # bytes of a number: moments; activations and finished maps
TOUCHED = 6  # times that a number of the moments is read or written when rows are added


@dataclass(frozen=True)
class Work:
    """Floating-point operations, those that are products of matrices apart, and bytes touched."""

    products: float = 0.0
    decompositions: float = 0.0
    touched: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.products + other.products,
            self.decompositions + other.decompositions,
            self.touched + other.touched,
        )

    def __mul__(self, times: int) -> "Work":
        return Work(self.products * times, self.decompositions * times, self.touched * times)


@dataclass(frozen=True)
class Shape:
    """An alignment: widths of both streams, pairs of sites, folds, and rows of each kind."""

    p: int
    q: int
    pairs: int
    folds: int
    rows: tuple[int, ...]

    # --- bytes --------------------------------------------------------------------------------

    @property
    def joint(self) -> int:
        """Bytes of one set of joint moments: two means, three scatter matrices."""
        return room(self.p, self.q)

    @property
    def moments(self) -> int:
        """Bytes that an alignment holds after reading: moments by fold, shuffled ones, anchors."""
        anchors = min(ANCHORS, self.rows[-1]) * (NARROW * (self.p + self.q) + 8)
        return self.pairs * ((self.folds + 1) * len(self.rows) * self.joint + anchors)

    def maps(self, count: int) -> int:
        """Bytes of so many finished maps at every pair."""
        return count * self.pairs * NARROW * (self.p * self.q + self.p + self.q)

    def peak(self, count: int) -> int:
        """Bytes at the fullest moment of fitting `count` maps and of drawing their chance.

        A fit pools every kind's rows, and weighs them; likeness needs the last kind's, and a factor
        of a scatter.
        """
        pooling = 2 * len(self.rows) * self.joint
        drawing = self.pairs * self.joint + 3 * WIDE * max(self.p, self.q) ** 2
        return self.moments + self.maps(count) + max(pooling, drawing)

    # --- operations ---------------------------------------------------------------------------

    def reading(self, chunks: int) -> Work:
        """Rows into both copies of the moments, chunk by chunk, fold by fold."""
        cells = self.p**2 + self.p * self.q + self.q**2
        updates = chunks * (self.folds + 1) * len(self.rows)
        one = Work(4.0 * sum(self.rows) * cells, touched=TOUCHED * updates * self.joint)
        return one * self.pairs

    def fit(self, method: Method, choosing: bool = True) -> Work:
        """One method at every pair; without `choosing`, rank and penalty are given."""
        p, q, rows = self.p, self.q, sum(self.rows)
        small_p, small_q = (min(width, fitting.CAP, max(1, rows - 1)) for width in (p, q))
        work = self._pooling + _frame(p, rows) + _frame(q, rows) + self._within(small_p, small_q)
        most = min(small_p, small_q)
        if method is Method.RELATIVE:
            placed = sum(w * s for w, s in ((p, small_p), (q, small_q)) if w > fitting.CAP)
            work += Work(2.0 * ANCHORS * placed) * (1 + choosing * self.folds)
        if choosing:
            work += self._within(small_p, small_q) * (self.folds * len(self.rows))
            ladder, penalties = fitting._ladder(most), _penalties(method)
            anchors = ANCHORS * (self.folds - 1) // self.folds  # a fold takes its own along
            one = _candidates(method, small_p, small_q, ladder, penalties, anchors)
            work += one * self.folds
        work += _candidates(method, small_p, small_q, [most], 1, ANCHORS, scored=False)
        back = q * small_q * small_p * (q > fitting.CAP) + q * small_p * p * (p > fitting.CAP)
        return (work + Work(2.0 * back)) * self.pairs

    @property
    def chance(self) -> Work:
        """What chance gives through one map, at every pair: three sets of draws."""
        p, q, draws = self.p, self.q, draws_for(self.pairs)
        drawn = Work(2.0 * draws * (2 * p * q + p**2 + q**2), (p**3 + q**3) / 3)
        return drawn * self.pairs

    @property
    def agreeing(self) -> Work:
        """Random functions of both streams, at every pair; all maps share them."""
        squares, cubes = self.p**2 + self.q**2, self.p**3 + self.q**3
        draws = draws_for(self.pairs)
        return Work(2.0 * draws * squares, cubes / 3 + draws * squares) * self.pairs

    def inverse(self, rank: int) -> Work:
        """Maps of a rank undone at every pair, as probes need it."""
        p, q = self.p, self.q
        if 4 * rank >= min(p, q):
            return (Work(2.0 * p * q * rank) + _svd(p, q)) * self.pairs
        some = rank + 8
        basis = Work(4.0 * p * q * some + 2.0 * p * some * (some + q), 4.0 * q * some**2)
        return (basis + _svd(p, some)) * self.pairs

    @property
    def _pooling(self) -> Work:
        return Work(touched=TOUCHED * (2 * self.folds + 1) * len(self.rows) * self.joint)

    def _within(self, p: int, q: int) -> Work:
        """One set of moments in reduced coordinates."""
        work = Work()
        for width, kept in ((self.p, p), (self.q, q)):
            if width > fitting.CAP:
                work += Work(2.0 * (width**2 * kept + width * kept**2))
        left = self.p * self.q * p if self.p > fitting.CAP else 0
        right = p * self.q * q if self.q > fitting.CAP else 0
        return work + Work(2.0 * (left + right))


def sketched(layers: tuple[int, int], widths: tuple[int, int]) -> tuple[int, int]:
    """Widths of two models' layers side by side, as their similarity is computed."""
    one, other = (many * min(width, SKETCH) for many, width in zip(layers, widths, strict=True))
    return one, other


def comparing(layers: tuple[int, int], widths: tuple[int, int], rows: int, chunks: int) -> Work:
    """Similarity of every pair of layers."""
    a, b = sketched(layers, widths)
    sketching = 2.0 * rows * SKETCH * (layers[0] * widths[0] + layers[1] * widths[1])
    cells = 2.0 * rows * (a * a + a * b + b * b)
    return Work(sketching + cells, touched=TOUCHED * chunks * room(a, b))


def _frame(width: int, rows: int) -> Work:
    """Leading axes of a wide stream, as `maps.linear.leading` finds them."""
    if width <= fitting.CAP:
        return Work()
    count = min(fitting.CAP, rows - 1)
    if 4 * count >= width:
        return Work(decompositions=9.0 * width**3)
    some = count + 16
    products = 2.0 * (POWERS + 1) * width**2 * some + 4.0 * width * some**2
    return Work(products, POWERS * 4.0 * width * some**2 + 9.0 * some**3)


def _penalties(method: Method) -> int:
    many = {Method.RIDGE: fitting.PENALTIES, Method.CCA: fitting.WHITENING}
    return len(many.get(method, (0.0,)))


def _candidates(
    method: Method,
    p: int,
    q: int,
    ranks: Sequence[int],
    penalties: int,
    anchors: int,
    scored: bool = True,
) -> Work:
    """All candidates of a method in reduced coordinates, each scored on the fold left out."""
    each = Work(2.0 * q * p * p if scored else 0.0)
    spectrum = Work(decompositions=9.0 * p**3)
    both = spectrum + Work(2.0 * (p * p * q + p * q * q), 9.0 * q**3)
    work = Work()
    if method is Method.RIDGE:
        work += spectrum + Work(2.0 * p * p * q)
        for k in ranks:
            work += (each + Work(2.0 * q * k * p)) * penalties
    elif method is Method.CCA:
        work += both + _svd(p, q) * penalties
        for k in ranks:
            work += (each + Work(2.0 * (q * q * k + q * k * p + q * p * p))) * penalties
    elif method is Method.RELATIVE:
        work += _svd(anchors, q)
        for k in ranks:
            work += each + Work(2.0 * q * anchors * (k + p))
    else:
        work += both
        for k in ranks:
            work += each + _svd(k, k) + Work(2.0 * (k**3 + q * k * k + q * k * p))
    return work


def _svd(rows: int, columns: int) -> Work:
    """Singular values and vectors, thin."""
    long, short = max(rows, columns), min(rows, columns)
    return Work(decompositions=14.0 * long * short**2 + 8.0 * short**3)
