"""Intervals cover as promised, paths go together as errors did, and both grow beyond the fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import beta, binom

from titans_ts.outlook import Block, Outlook, at_levels

P = 6
LEVELS = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])


def outlook(
    errors: np.ndarray,
    *,
    rows: int = P,
    scale: float = 1.0,
    channels: int = 1,
    blocks: int = 1,
    gap: int = 0,
) -> Outlook:
    """Point forecasts of 0 with the quantiles of these errors."""
    quantiles = np.nanquantile(errors, LEVELS, axis=0).transpose(1, 0, 2)  # (K, Q, P)
    quantiles = np.broadcast_to(quantiles, (channels, len(LEVELS), P))
    zero = np.zeros((channels, P))
    block = Block(zero, zero, quantiles, np.full((channels, 1), scale))
    return Outlook(
        [block] * blocks,
        LEVELS,
        errors,
        rows,
        np.zeros((channels, 1)),
        np.full(channels, gap),
        block.scale,
        np.ones((channels, P)),
        np.ones((channels, 1)),
    )


def walks(n: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Errors that add up over the steps ahead."""
    return np.random.default_rng(seed).normal(size=(n, channels, P)).cumsum(axis=2)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_intervals_cover_exchangeable_errors_as_promised(coverage: float) -> None:
    n, trials = 99, 600
    rng = np.random.default_rng(0)
    inside = np.zeros(P, dtype=int)
    for _ in range(trials):
        errors = np.exp(rng.normal(size=(n + 1, 1, P)))  # skewed, of any law
        lower, upper = outlook(errors[:n]).interval(coverage)
        inside += (errors[n, 0] >= lower[0]) & (errors[n, 0] <= upper[0])
    # Split conformal: exactly ceil(coverage (n + 1)) / (n + 1), which is here the coverage.
    low, high = binom.ppf([1e-4, 1 - 1e-4], trials, coverage)
    assert (inside >= low).all()
    assert (inside <= high).all()


def test_given_the_calibration_the_coverage_is_as_theory_has_it() -> None:
    n, coverage = 199, 0.9
    rng = np.random.default_rng(1)
    held = []
    for _ in range(200):
        _, upper = outlook(rng.normal(size=(n, 1, P))).interval(coverage)
        held.append((np.abs(rng.normal(size=2000)) <= upper[0, 0]).mean())
    rank = int(np.ceil(coverage * (n + 1)))
    law = beta(rank, n + 1 - rank)
    assert np.mean(held) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(200))
    assert np.std(held) == pytest.approx(np.hypot(law.std(), np.sqrt(0.09 / 2000)), rel=0.3)


def test_intervals_are_nested_and_as_wide_as_the_scale_of_the_window() -> None:
    errors = walks(200)
    edges = [outlook(errors).interval(coverage) for coverage in (0.3, 0.6, 0.9, 0.99)]
    for (low, high), (lower, higher) in pairwise(edges):
        assert (lower <= low).all()
        assert (high <= higher).all()
    lower, upper = outlook(errors, scale=3.0).interval(0.6)
    np.testing.assert_allclose([lower, upper], [3 * edge for edge in edges[1]])
    expected = np.sort(np.abs(errors[:, 0]), axis=0)[int(np.ceil(0.6 * 201)) - 1]
    np.testing.assert_allclose(upper[0], 3 * expected)


def test_missing_errors_do_not_count() -> None:
    errors = walks(120)
    padded = np.concatenate([errors, np.full((50, 1, P), np.nan)])
    padded = padded[np.random.default_rng(0).permutation(len(padded))]
    np.testing.assert_array_equal(outlook(padded).interval(0.9), outlook(errors).interval(0.9))


def test_too_few_windows_say_what_they_vouch_for() -> None:
    outlook(walks(19)).interval(0.95)
    message = r"coverage 0\.96 needs more validation windows than the 19 .* vouch for at most 0\.95"
    with pytest.raises(ValueError, match=message):
        outlook(walks(19)).interval(0.96)


def test_the_margins_of_paths_are_the_quantiles() -> None:
    found = outlook(walks(400))
    paths = found.paths(400, np.random.default_rng(0))
    assert paths.shape == (1, 400, P)
    margins = np.quantile(paths[0], LEVELS, axis=0)
    spread = found.quantiles[0, -1] - found.quantiles[0, 0]
    assert (np.abs(margins - found.quantiles[0]) < 0.03 * spread).all()


def test_steps_of_a_path_go_together_as_errors_did() -> None:
    errors = walks(600)
    paths = outlook(errors).paths(600, np.random.default_rng(0))[0]
    steps = np.diff(paths, axis=1)
    assert steps.var(axis=0) == pytest.approx(np.ones(P - 1), rel=0.25)  # those of a random walk
    independent = np.random.default_rng(0).permuted(paths, axis=0)
    assert (np.diff(independent, axis=1).var(axis=0) > 2.5).all()
    np.testing.assert_allclose(np.corrcoef(paths.T), np.corrcoef(errors[:, 0].T), atol=0.03)


def test_channels_of_a_table_go_together_as_errors_did() -> None:
    errors = walks(600, channels=2)
    errors[:, 1] = 0.8 * errors[:, 0] + 0.6 * errors[:, 1]
    paths = outlook(errors, channels=2).paths(600, np.random.default_rng(0))
    for step in range(P):
        found = np.corrcoef(paths[0, :, step], paths[1, :, step])[0, 1]
        known = np.corrcoef(errors[:, 0, step], errors[:, 1, step])[0, 1]
        assert found == pytest.approx(known, abs=0.05)


def test_every_origin_is_drawn_once_before_any_is_drawn_twice() -> None:
    errors = walks(40)
    paths = outlook(errors).paths(100, np.random.default_rng(0))[0, :, -1]
    _, counts = np.unique(paths.round(9), return_counts=True)
    assert sorted(set(counts)) == [2, 3]
    again = outlook(errors).paths(100, np.random.default_rng(0))[0, :, -1]
    np.testing.assert_array_equal(paths, again)


def test_beyond_the_prediction_length_deviations_add_up_as_independent_ones_do() -> None:
    found = outlook(walks(500), rows=3 * P - 2, blocks=3)
    assert found.point.shape == (1, 3 * P - 2)
    first = outlook(walks(500)).quantiles[0]
    block = found.quantiles[0]
    np.testing.assert_allclose(block[:, :P], first)
    np.testing.assert_allclose(block[-1, P], np.hypot(first[-1, 0], first[-1, -1]))
    np.testing.assert_allclose(block[-1, 2 * P - 1], np.sqrt(2) * first[-1, -1])
    assert (np.diff(block, axis=0) >= 0).all()
    lower, upper = found.interval(0.9)
    width = (upper - lower)[0]
    assert (np.diff(width[P - 1 :: P]) > 0).all()
    assert (width[P:] >= width[P - 1]).all()
    np.testing.assert_allclose(found.point[0], (lower + upper)[0] / 2, atol=1e-12)
    assert found.paths(10, np.random.default_rng(0)).shape == (1, 10, 3 * P - 2)


def test_levels_are_read_between_the_known_ones() -> None:
    values = ndtri(LEVELS)[None]
    np.testing.assert_allclose(at_levels(values, LEVELS, LEVELS), values)
    between = at_levels(values, LEVELS, np.array([0.3]))
    assert between[0, 0] == pytest.approx(values[0, 2] + 0.2 * (values[0, 3] - values[0, 2]))
    only = at_levels(values[:, 3:4], LEVELS[3:4], np.array([0.5]))
    np.testing.assert_array_equal(only, values[:, 3:4])


@pytest.mark.parametrize("gap", [2, P, 2 * P + 3])
def test_after_a_gap_deviations_are_those_of_so_many_rows_further_ahead(gap: int) -> None:
    far = outlook(walks(500), rows=gap + P, blocks=-(-(gap + P) // P))
    near = outlook(walks(500), gap=gap)
    np.testing.assert_allclose(near.quantiles, far.quantiles[..., gap:])
    np.testing.assert_allclose(near.interval(0.8), np.array(far.interval(0.8))[..., gap:])
    ours, theirs = (x.paths(4000, np.random.default_rng(0))[0] for x in (near, far))
    np.testing.assert_allclose(ours.std(axis=0), theirs[:, gap:].std(axis=0), rtol=0.06)
    np.testing.assert_allclose(np.corrcoef(ours.T), np.corrcoef(theirs[:, gap:].T), atol=0.05)


def test_a_path_goes_on_from_the_block_before() -> None:
    paths = outlook(walks(2000), rows=3 * P, blocks=3).paths(2000, np.random.default_rng(0))[0]
    steps = np.diff(paths, axis=1)
    assert steps.var(axis=0) == pytest.approx(np.ones(3 * P - 1), rel=0.25)  # of a random walk
    margins = outlook(walks(2000), rows=3 * P, blocks=3).quantiles[0]
    spread = margins[-1] - margins[0]
    assert (np.abs(np.quantile(paths, LEVELS, axis=0) - margins) < 0.06 * spread).all()


def test_blocks_further_on_are_as_wide_as_what_was_seen() -> None:
    """A forecast that rolls on is smoother than what it rolls on from."""
    whole = outlook(walks(300), rows=2 * P, blocks=2)
    smooth = Block(
        *(getattr(whole.blocks[1], x) for x in ("point", "ahead", "levels")), 0.3 * whole.scale
    )
    rolled = replace(whole, blocks=[whole.blocks[0], smooth])
    np.testing.assert_allclose(rolled.quantiles, whole.quantiles)
    np.testing.assert_allclose(rolled.interval(0.8), whole.interval(0.8))
