"""What lies ahead of a number of windows: point forecast, quantiles, intervals, sample paths.

All of it is z-scored; K windows, one per channel. Beyond the prediction length a forecast rolls on:
the point forecast becomes the context of the next block, and deviations add up as independent ones
do, by their squares; and where the last rows are missing, what lies ahead is so much further off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from titans_ts.windows import Array


@dataclass(frozen=True)
class Block:
    """Forecasts of one prediction length ahead.

    Parameters
    ----------
    point, ahead : ndarray of shape (K, P)
        The forecast, and what the levels lie around.
    levels : ndarray of shape (K, Q, P)
        Distances of the quantiles from there, in window scales. They may have come to cross.
    scale : ndarray of shape (K, 1)
        Of the windows.
    """

    point: Array
    ahead: Array
    levels: Array
    scale: Array

    @property
    def quantiles(self) -> Array:
        """``(K, Q, P)``, not decreasing along Q; the point forecast does without them."""
        return np.sort(self.ahead[:, None] + self.scale[..., None] * self.levels, axis=1)

    def of(self, windows: slice) -> Block:
        """Those of some of the windows."""
        return Block(
            self.point[windows], self.ahead[windows], self.levels[windows], self.scale[windows]
        )


@dataclass(frozen=True)
class Outlook:
    """All blocks ahead of K windows, and the validation errors that tell how far they may be off.

    Parameters
    ----------
    blocks : sequence of Block
    levels : ndarray of shape (Q,)
    errors : ndarray of shape (n, K, P), or (n, 1, P)
        Of the point forecast at n validation origins, in window scales, NaN where unknown.
    rows : int
        Rows that are wanted.
    to_mean : ndarray of shape (K, P), or (K, 1)
        From the point forecast of a logarithm, a median, to that of the mean.
    gap : int ndarray of shape (K,)
        Rows before the forecast that are missing.
    scale : ndarray of shape (K, 1)
        Of the last windows that were seen: those that a forecast rolls on from are too smooth.
    growth : ndarray of shape (K, P)
        What widths are multiplied by, for windows that have begun within the look-back.
    width : ndarray of shape (K, 1)
        The same, for what errors have been since the fit.
    """

    blocks: Sequence[Block]
    levels: Array
    errors: Array
    rows: int
    to_mean: Array
    gap: np.ndarray
    scale: Array
    growth: Array
    width: Array

    @property
    def point(self) -> Array:
        """``(K, H)``."""
        return np.concatenate([block.point for block in self.blocks], axis=1)[:, : self.rows]

    @property
    def mean(self) -> Array:
        """The point forecast for squared error, in original units ``(K, H)``."""
        means = [block.point + self.to_mean for block in self.blocks]
        return np.concatenate(means, axis=1)[:, : self.rows]

    @property
    def quantiles(self) -> Array:
        """``(K, Q, H)`` at ``levels``, not decreasing along Q."""
        return self._from_point(self._fan)

    def interval(self, coverage: float) -> tuple[Array, Array]:
        """Lower and upper ends ``(K, H)`` that hold the truth with this probability.

        Split conformal: as wide as the smallest of the n absolute validation errors, per window
        scale, that at least ``coverage (n + 1)`` of them do not exceed.

        Raises
        ------
        ValueError
            There are too few validation windows to vouch for such a coverage.
        """
        half, count = self.half_width(coverage)
        if np.isnan(half).any():
            raise ValueError(
                f"coverage {coverage:g} needs more validation windows than the {count} there are, "
                f"which vouch for at most {count / (count + 1):.3g}. Fit with a larger "
                "validation_size."
            )
        widths = self._from_point(lambda _: half[:, None])
        return (2 * self.point[:, None] - widths)[:, 0], widths[:, 0]

    def half_width(self, coverage: float) -> tuple[Array, int]:
        """Half of the interval over one block ``(K, P)``, NaN where too few windows vouch for it.

        Also, how many windows there are where they are fewest.
        """
        size = np.abs(self.errors)
        count = (~np.isnan(size)).sum(axis=0)
        if not len(size):
            return np.full(self.blocks[0].point.shape, np.nan), 0
        rank = np.ceil(coverage * (count + 1) - 1e-9).astype(int)
        place = np.minimum(rank, len(size)) - 1
        size = np.partition(size, np.unique(place), axis=0)  # NaN last
        half = np.take_along_axis(size, place[None], axis=0)[0]
        half = np.where(rank > count, np.nan, half)  # (K or 1, P)
        return np.asarray(half * self.scale * self.growth * self.width), int(count.min())

    def paths(self, n_paths: int, generator: np.random.Generator) -> Array:
        """Sample paths ``(K, n_paths, H)``: the quantiles are their margins, the past their joints.

        The errors at one validation origin give each path its ranks (the Schaake shuffle), so that
        steps, and channels of one table, go together as they did there.

        Notes
        -----
        Clark et al. (2004), The Schaake shuffle: a method for reconstructing space-time variability
        in forecasted precipitation and temperature fields.
        """
        from scipy.special import ndtri  # not at the top: importing this package is cheap

        # Ranks of what is unknown are the middle ones.
        order = np.argsort(np.argsort(self.errors, axis=0), axis=0) + 1.0
        known = ~np.isnan(self.errors)
        rank = np.where(known, order / (known.sum(axis=0) + 1), 0.5)
        once = ndtri(rank)

        def drawn() -> Array:
            """Normal scores ``(K, n_paths, P)`` of origins, all once before one twice."""
            orders = [generator.permutation(len(once)) for _ in range(-(-n_paths // len(once)))]
            score = once[np.concatenate(orders)[:n_paths]]
            shape = (n_paths, len(self.point), once.shape[-1])
            return np.broadcast_to(score, shape).transpose(1, 0, 2)

        # What a path is off at a block's end it stays off: the next block's deviations are added.
        fans = map(self._fan, self._walked)
        sizes = [fan[:, -1:] - fan[:, :1] for fan in fans]
        carried = np.sqrt(self._passed) * sizes[0][..., -1:]
        score = drawn()[..., -1:] if self.gap.any() else np.zeros((len(self.point), n_paths, 1))
        scores = []
        for size in sizes:
            total = np.hypot(carried, size)
            mixed = carried * score + size * drawn()
            scores.append(np.divide(mixed, total, out=np.zeros_like(mixed), where=total > 0))
            carried, score = total[..., -1:], scores[-1][..., -1:]
        return _at_scores(self.quantiles, ndtri(self.levels), self._ahead(scores))

    def _fan(self, block: Block) -> Array:
        """Distances of a block's quantiles from its point forecast, ``(K, Q, P)``."""
        widened = self.scale / block.scale * self.growth * self.width
        return (block.quantiles - block.point[:, None]) * widened[:, None]

    @property
    def _walked(self) -> Sequence[Block]:
        """The blocks, and the last again where a gap makes the last rows lie beyond it."""
        more = -(-(int(self._within.max()) + self.rows) // self.blocks[0].point.shape[1])
        return [*self.blocks, *[self.blocks[-1]] * (more - len(self.blocks))]

    @property
    def _passed(self) -> Array:
        """Whole blocks that a gap spans, ``(K, 1, 1)``."""
        return (self.gap // self.blocks[0].point.shape[1])[:, None, None].astype(float)

    @property
    def _within(self) -> np.ndarray:
        """Rows by which it goes beyond them, ``(K,)``."""
        return np.asarray(self.gap % self.blocks[0].point.shape[1])

    def _ahead(self, walked: Sequence[Array]) -> Array:
        """Of values ``(K, D, P)`` of each block walked, those of the rows that are wanted."""
        whole = np.concatenate(walked, axis=-1)
        if not self.gap.any():
            return whole[..., : self.rows]
        wanted = self._within[:, None, None] + np.arange(self.rows)
        return np.take_along_axis(whole, wanted, axis=-1)

    def _from_point(self, deviation: Callable[[Block], Array]) -> Array:
        """Add deviations ``(K, D, P)`` of each block, grown by those of the blocks before."""
        grown: list[Array] = []
        for block in self._walked:
            own = deviation(block)
            before = np.abs(grown[-1] if grown else np.sqrt(self._passed) * own)[..., -1:]
            grown.append(np.sign(own) * np.hypot(own, before))
        # A level near the point forecast may have changed its side from one block to the next.
        return np.asarray(np.sort(self._ahead(grown), axis=1) + self.point[:, None])


def _at_scores(quantiles: Array, known: Array, wanted: Array) -> Array:
    """Quantiles ``(K, Q, H)`` at normal scores ``(Q,)``, read at scores ``(K, S, H)``.

    Linear in the score, beyond the outermost levels too: there, tails are those of a normal.
    """
    if len(known) == 1:
        return np.broadcast_to(quantiles, wanted.shape).copy()
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    low = np.take_along_axis(quantiles, right - 1, axis=1)
    high = np.take_along_axis(quantiles, right, axis=1)
    return low + share * (high - low)


def at_levels(quantiles: Array, known: Array, wanted: Array) -> Array:
    """Interpolate ``(..., Q)`` between known levels, linearly in the level."""
    if len(known) == 1:
        return quantiles[..., np.zeros(len(wanted), dtype=int)]
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    return quantiles[..., right - 1] * (1 - share) + quantiles[..., right] * share
