"""The network's part: when patches are due, and what of its answers is admitted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_ts import validation_walk
from titans_ts.adaptation import Stream
from titans_ts.admission import Forecasts, Residual, admit
from titans_ts.channels import Channels
from titans_ts.linear import LinearPart
from titans_ts.linear_choice import LinearChoice, refit_linear
from titans_ts.network import ForecastNetwork
from titans_ts.residual import _error_spread
from titans_ts.residual_windows import ResidualWindows
from titans_ts.validation_walk import forecast_validation, validation_groups
from titans_ts.windows import SCALE_FLOOR, PatchClock, normalise, patches_ending

LEVELS = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
L, P, PATCH, CHANNELS = 16, 4, 5, 2
CLOCK = PatchClock(L, PATCH)
SPREAD = np.linspace(-1, 1, 5)[:, None] * np.linspace(1, 2, P)


def make_network() -> ForecastNetwork:
    torch.manual_seed(0)
    network = ForecastNetwork(
        BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=1),
        channels=CHANNELS,
        context_length=L,
        patch_length=PATCH,
        median_index=2,
        spread=torch.from_numpy(SPREAD).float(),
    )
    return network.eval()


def restless(network: ForecastNetwork) -> ForecastNetwork:
    """The network with a head that answers something, as after training."""
    torch.nn.init.normal_(network.project.weight)
    torch.nn.init.normal_(network.recall.weight)
    return network


def joined(z: np.ndarray, n_train: int) -> Channels:
    return Channels.join([z], [n_train])


def ridge(z: np.ndarray) -> LinearPart:
    """A shared ridge of all rows."""
    choice = LinearChoice((L,), np.ones(1), None, np.ones(1))
    return refit_linear(joined(z, len(z)), choice, P)


def group(origins: np.ndarray, rows: int) -> np.ndarray:
    """Rows of each channel, as origins on the axis of all."""
    return origins[:, None] + np.arange(CHANNELS) * rows


def walk(rows: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, CHANNELS)).cumsum(axis=0) / 10


@given(context=st.integers(2, 60), patch=st.integers(1, 60), ahead=st.integers(0, 400))
def test_a_patch_is_due_once_no_window_reaches_back_to_it(
    context: int, patch: int, ahead: int
) -> None:
    clock = PatchClock(context, min(patch, context))
    origin = context + ahead
    due = clock.due(origin)
    assert clock.end(due - 1) <= origin - context < clock.end(due)
    assert clock.end(clock.first) >= context > clock.end(clock.first) - clock.patch_length


def test_a_patch_is_normalised_by_the_rows_that_end_with_it() -> None:
    z = walk(40)
    patch = patches_ending(z, np.array([30]), CLOCK)[0]
    window = z[30 - L : 30]
    scale = np.sqrt(window.var(axis=0) + SCALE_FLOOR**2)
    expected = ((window[-PATCH:] - window.mean(axis=0)) / scale).T
    np.testing.assert_allclose(patch, expected)


def test_an_untrained_network_changes_nothing_and_spreads_as_the_linear_errors() -> None:
    answer = make_network()(torch.randn(3, L), torch.tensor([0, 1, 0]))
    expected = torch.from_numpy(SPREAD).float().expand(3, -1, -1)
    torch.testing.assert_close(answer, expected)


def test_levels_of_any_network_are_in_order() -> None:
    answer = restless(make_network())(5 * torch.randn(50, L), torch.zeros(50, dtype=torch.long))
    assert (answer.diff(dim=1) >= 0).all()
    assert answer[:, 2].abs().max() > 0.1


def test_validation_forecasts_with_the_memory_are_those_of_a_live_stream() -> None:
    z = walk(160)
    z[[70, 71, 72, 73, 90], 1] = np.nan  # a patch that is not known enough, and one that is
    network = restless(make_network())
    linear = ridge(z[:80])
    data = ResidualWindows(joined(z, 80), linear, CLOCK)
    origins = np.arange(80, 157)
    carried, fresh = (
        forecast_validation(network, data, [group(origins, len(z))], ask_memory=True, carry=carry)
        for carry in (True, False)
    )
    assert carried.answer is not None
    assert fresh.answer is not None
    # 1e-4: the memory is read in one call there and patch by patch here.
    assert np.abs(carried.answer - fresh.answer).max() > 1e-2
    np.testing.assert_array_equal(carried.channel, np.tile([0, 1], len(origins)))

    none, every = np.empty((80, 0)), np.arange(CHANNELS)
    stream = Stream.begin(z[:80], z[79], every, every, none, none[0], linear, network, CLOCK)
    linear.learn = lambda *_: None  # type: ignore[method-assign]  # as at validation
    answers = carried.answer.reshape(len(origins), CHANNELS, *carried.answer.shape[1:])
    for i, origin in enumerate(origins):
        window = torch.from_numpy(normalise(stream.recent[-L:].T)[0]).float()
        with torch.no_grad():
            answer = network(window, torch.arange(CHANNELS), stream.memory)
        np.testing.assert_allclose(answer.numpy(), answers[i], atol=1e-4)
        row = z[origin : origin + 1]
        stream.observe(row, z[origin], none[:1], linear, network, CLOCK, learn=True)


def test_a_long_past_is_read_in_pieces_and_remembered_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z, network = walk(160), restless(make_network())
    data = ResidualWindows(joined(z, 140), ridge(z[:140]), CLOCK)
    origins = [group(np.arange(140, 157), len(z))]
    answers, sizes, read = [], [], network.remember

    def remember(patches: torch.Tensor, *rest: Any) -> Any:
        sizes.append(patches.shape[1])
        return read(patches, *rest)

    monkeypatch.setattr(network, "remember", remember)
    for most in (4096, 4):
        monkeypatch.setattr(validation_walk, "PATCHES_AT_ONCE", most)
        found = forecast_validation(network, data, origins, ask_memory=True, carry=True)
        answers.append(found.answer)
    assert sizes == [21, 1, 1, 1, 1, 4, 4, 4, 4, 4, 1, 1, 1, 1, 1]
    # 1e-4: the chunks of the memory are cut elsewhere.
    np.testing.assert_allclose(*answers, atol=1e-4)


@pytest.mark.parametrize("carry", [True, False])
def test_validation_forecasts_do_not_see_what_comes_after_their_origin(carry: bool) -> None:
    z, network = walk(160), restless(make_network())
    z[100:103, 0] = np.nan
    linear = ridge(z[:80])
    garbage = z.copy()
    garbage[120:] = 1e3
    origins = group(np.arange(80, 121), len(z))
    clean, spoiled = (
        forecast_validation(
            network,
            ResidualWindows(joined(y, 80), linear, CLOCK),
            [origins],
            ask_memory=True,
            carry=carry,
        )
        for y in (z, garbage)
    )
    assert clean.answer is not None
    assert spoiled.answer is not None
    assert np.array_equal(clean.answer, spoiled.answer)
    assert not np.array_equal(clean.error, spoiled.error)


def test_training_does_not_see_the_validation_rows() -> None:
    z = walk(160)
    linear = ridge(z[:100])
    garbage = z.copy()
    garbage[100:] = 1e3
    clean, spoiled = (ResidualWindows(joined(y, 100), linear, CLOCK) for y in (z, garbage))
    assert np.array_equal(_error_spread(clean, LEVELS), _error_spread(spoiled, LEVELS))
    origins = clean.training_origins(3)
    assert (origins % 160).max() == 100 - P
    assert (origins % 160).min() == clean.rows_before(3) == 2 * L + 2 * PATCH
    for one, other in zip(clean.sample(origins, 3), spoiled.sample(origins, 3), strict=True):
        assert torch.equal(one, other)


def test_groups_of_validation_hold_the_channels_that_begin_and_end_together() -> None:
    wide, alone = walk(120), walk(90)[:, :1]
    channels = Channels.join([wide, alone, wide], [80, 60, 80])
    data = ResidualWindows(channels, ridge(wide), CLOCK)
    groups = validation_groups(data, 5 * P)
    assert [origins.shape for origins in groups] == [(27, 1), (37, 4)]
    local = groups[1] - channels.starts[[0, 1, 3, 4]]
    np.testing.assert_array_equal(local, np.tile(np.arange(80, 117)[:, None], 4))
    np.testing.assert_array_equal(groups[0][:, 0] - channels.starts[2], np.arange(60, 87))


def test_windows_not_known_enough_are_not_scored() -> None:
    z = walk(160)
    z[120:130, 0] = np.nan
    data = ResidualWindows(joined(z, 80), ridge(z[:80]), CLOCK)
    origins = np.arange(80, 157)
    found = forecast_validation(None, data, [group(origins, len(z))], ask_memory=False, carry=False)
    error = found.error.reshape(len(origins), CHANNELS, P)
    for i, origin in enumerate(origins):
        for c in range(CHANNELS):
            known = ~np.isnan(z[:, c])
            enough = known[origin - L : origin].mean() >= 0.5
            enough &= known[origin : origin + P].mean() >= 0.5
            expected = known[origin : origin + P] & enough
            np.testing.assert_array_equal(~np.isnan(error[i, c]), expected)


def test_missing_patches_leave_the_memory_as_it_was() -> None:
    network = restless(make_network())
    patches = torch.randn(CHANNELS, 6, PATCH)
    known = torch.tensor([[True, False, True, True, False, True], [True] * 6])
    garbage = torch.where(known[..., None], patches, 1e3)
    with torch.no_grad():
        state, other = (
            network.remember(x, torch.arange(2), None, known) for x in (patches, garbage)
        )
        for one, two in zip(tensors_of(state), tensors_of(other), strict=True):
            assert torch.equal(one, two)
        # A stretch of nothing but missing patches writes nothing at all.
        nothing = torch.zeros(CHANNELS, 4, dtype=torch.bool)
        later = network.remember(patches[:, :4], torch.arange(2), state, nothing)
    before, after = state.blocks[0].memory, later.blocks[0].memory  # type: ignore[union-attr]
    for one, two in zip(before.weights, after.weights, strict=True):
        assert torch.equal(one, two)
    window = torch.randn(CHANNELS, L)
    with torch.no_grad():
        answers = [network(window, torch.arange(2), s) for s in (state, other)]
    assert torch.equal(*answers)


def tensors_of(state: object) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    return [x for part in state for x in tensors_of(part)] if isinstance(state, tuple) else []


WINDOWS = 12  # one after the other, as independent as four times this makes certain
TRUST = WINDOWS / (WINDOWS + 4)


def validated(error: np.ndarray, scale: np.ndarray, answer: np.ndarray) -> Forecasts:
    """Forecasts (n, C, ...) at n times, of all channels."""
    n = len(error)
    return Forecasts(
        error=error.reshape(n * CHANNELS, P),
        scale=scale.reshape(n * CHANNELS, 1),
        channel=np.tile(np.arange(CHANNELS), n),
        late=np.repeat(np.arange(n) >= n / 2, CHANNELS),
        windows=WINDOWS,
        answer=np.broadcast_to(answer, (n, CHANNELS, 5, P)).reshape(n * CHANNELS, 5, P),
    )


def forecasts(share: float | np.ndarray) -> Forecasts:
    """Errors of a skewed law, and a network whose median says that share of each of them."""
    rng = np.random.default_rng(0)
    error = rng.exponential(size=(400, CHANNELS, P)) - 1
    scale = rng.uniform(0.5, 2, size=(400, CHANNELS, 1))
    return validated(error, scale, (share * error / scale)[:, :, None] + SPREAD)


@pytest.mark.parametrize(
    ("share", "gate"),
    [
        (0.0, 0.0),  # says nothing
        (-1.0, 0.0),  # only hurts: switched off
        (1.0, 1.0),  # is right
        (2.0, 0.5),  # says too much
        (0.5, 1.0),  # says too little: at most all of it
    ],
)
def test_the_gate_is_what_validation_backs_as_far_as_it_is_long(share: float, gate: float) -> None:
    admission = admit(forecasts(share), SPREAD, LEVELS, CHANNELS, asks_memory=True)
    np.testing.assert_allclose(admission.gate, [TRUST * gate] * CHANNELS)
    left = forecasts(share).error * (1 - TRUST * gate * share)
    assert admission.loss == pytest.approx(np.square(left).mean())
    np.testing.assert_allclose(
        admission.errors, (left / forecasts(share).scale).reshape(-1, CHANNELS, P)
    )


def test_the_gate_of_a_channel_is_least_squares_drawn_to_that_of_all() -> None:
    share = np.array([1.0, 4.0])[:, None]
    found = forecasts(share)
    error = found.error.reshape(-1, CHANNELS, P)
    correction = share * error
    weight = 1 / np.square(error).mean(axis=(0, 2)).clip(0.2)
    for c, gate in enumerate(admit(found, SPREAD, LEVELS, CHANNELS, asks_memory=True).gate):
        both = []  # what each half alone would say, and both
        for rows in (slice(None), slice(200), slice(200, None)):
            counts = weight * (np.arange(CHANNELS) == c) + weight / CHANNELS
            root = np.sqrt(counts)[:, None]
            x, y = (root * correction[rows]).ravel(), (root * error[rows]).ravel()
            both.append(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])
        assert gate == pytest.approx(TRUST * (both[0] + min(both[1:])) / 2)


def test_what_only_one_half_of_validation_backs_is_held_back() -> None:
    share = np.repeat([1.0, -1.0], 200)[:, None, None]
    found = forecasts(share)
    size = np.square(found.error.reshape(2, -1)).sum(axis=1)
    assert (admit(found, SPREAD, LEVELS, CHANNELS, asks_memory=True).gate < 0.05).all()
    assert size[0] == pytest.approx(size[1], rel=0.2)  # both halves are worth as much


def test_missing_targets_do_not_count_for_the_gate() -> None:
    found = forecasts(1.0)
    gone = np.random.default_rng(1).random(found.error.shape) < 0.3
    error = np.where(gone, np.nan, found.error)
    masked = admit(
        dataclasses.replace(found, error=error), SPREAD, LEVELS, CHANNELS, asks_memory=True
    )
    np.testing.assert_allclose(masked.gate, TRUST)
    np.testing.assert_array_equal(np.isnan(masked.errors), gone.reshape(-1, CHANNELS, P))
    assert np.isfinite([masked.loss, masked.pinball, *masked.shift.ravel()]).all()


def test_a_panel_of_other_lengths_is_gated_and_calibrated_as_a_whole() -> None:
    found = forecasts(1.0)
    mixed = dataclasses.replace(found, channel=np.sort(found.channel))
    admission = admit(mixed, SPREAD, LEVELS, CHANNELS, asks_memory=True)
    assert admission.gate.shape == (1,)
    assert admission.shift.shape == (1, len(LEVELS))
    assert admission.errors.shape == (400 * CHANNELS, 1, P)


@pytest.mark.parametrize("aware", [True, False])
def test_levels_are_learned_where_they_score_better_and_cover_what_they_say(aware: bool) -> None:
    # Windows are calm or wild; only a network that is aware of it knows which.
    rng = np.random.default_rng(0)
    wild = rng.choice([0.1, 3.0], size=(400, CHANNELS, 1))
    error = wild * rng.normal(size=(400, CHANNELS, P))
    width = (wild if aware else 0.1 / wild)[..., None]
    validation = validated(error, np.ones_like(wild), width * SPREAD)

    admission = admit(validation, SPREAD, LEVELS, CHANNELS, asks_memory=True)
    assert admission.learned_levels is aware
    assert admission.uses_network is aware
    centre = width * SPREAD if aware else SPREAD
    covered = (error[:, :, None] <= centre + admission.shift[..., None]).mean(axis=(0, 3))
    np.testing.assert_allclose(covered, np.broadcast_to(LEVELS, covered.shape), atol=2e-3)


def test_the_carried_memory_is_used_only_where_it_is_no_worse() -> None:
    good, bad, off = (
        admit(forecasts(share), SPREAD, LEVELS, CHANNELS, asks_memory=True)
        for share in (1.0, 0.1, -1.0)
    )
    network = make_network()
    assert Residual(network, SPREAD, fresh=bad, carried=good).uses_memory
    assert Residual(network, SPREAD, fresh=good, carried=good).uses_memory
    assert not Residual(network, SPREAD, fresh=good, carried=bad).uses_memory
    trade = dataclasses.replace(good, loss=good.loss - 1e-9, pinball=good.pinball + 1e-3)
    assert not Residual(network, SPREAD, fresh=good, carried=trade).uses_memory
    assert not Residual(network, SPREAD, fresh=off, carried=off).uses_memory


def test_without_a_network_the_levels_are_those_of_the_linear_errors() -> None:
    silent = dataclasses.replace(forecasts(0.0), answer=None)
    assert not admit(silent, SPREAD, LEVELS, CHANNELS, asks_memory=True).uses_network
