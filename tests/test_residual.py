"""The network's part: when patches are due, and what of its answers is admitted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from titans_core import BackboneConfig, NeuralMemoryConfig
from titans_ts.adaptation import Stream
from titans_ts.admission import Forecasts, Residual, admit
from titans_ts.linear import LinearChoice, refit_linear
from titans_ts.network import ForecastNetwork
from titans_ts.residual import ResidualWindows, _error_spread, forecast_validation
from titans_ts.windows import SCALE_FLOOR, PatchClock, patches_ending

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
    return network


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
    network = restless(make_network())
    linear = refit_linear(z[:80], LinearChoice(shared_penalty=1.0), L, P)
    data = ResidualWindows(z, linear, CLOCK)
    origins = np.arange(80, 157)
    carried = forecast_validation(network, data, origins, carry=True)
    fresh = forecast_validation(network, data, origins, carry=False)
    # 1e-4: the memory is read in one call there and patch by patch here.
    assert np.abs(carried.answer - fresh.answer).max() > 1e-2

    stream = Stream.begin(z[:80], z[79], linear, network, CLOCK)
    stream.linear.learn = lambda *_: None  # type: ignore[method-assign]  # as at validation
    for i, origin in enumerate(origins):
        window = torch.from_numpy(carried_window(z, origin)).float()
        with torch.no_grad():
            answer = network(window, torch.arange(CHANNELS), stream.memory)
        np.testing.assert_allclose(answer.numpy(), carried.answer[i], atol=1e-4)
        stream.observe(z[origin : origin + 1], z[origin], network, CLOCK, learn=True)


@pytest.mark.parametrize("carry", [True, False])
def test_validation_forecasts_do_not_see_what_comes_after_their_origin(carry: bool) -> None:
    z, network = walk(160), restless(make_network())
    linear = refit_linear(z[:80], LinearChoice(shared_penalty=1.0), L, P)
    garbage = z.copy()
    garbage[120:] = 1e3
    origins = np.arange(80, 121)
    clean, spoiled = (
        forecast_validation(network, ResidualWindows(y, linear, CLOCK), origins, carry=carry)
        for y in (z, garbage)
    )
    assert clean.answer is not None
    assert np.array_equal(clean.answer, spoiled.answer)
    assert not np.array_equal(clean.error, spoiled.error)


def test_training_does_not_see_the_validation_rows() -> None:
    z = walk(160)
    linear = refit_linear(z[:100], LinearChoice(shared_penalty=1.0), L, P)
    garbage = z.copy()
    garbage[100:] = 1e3
    clean, spoiled = (ResidualWindows(y, linear, CLOCK) for y in (z, garbage))
    assert np.array_equal(_error_spread(clean, 100, LEVELS), _error_spread(spoiled, 100, LEVELS))
    last = np.arange(90, 100 - P + 1)
    for one, other in zip(clean.sample(last, 3), spoiled.sample(last, 3), strict=True):
        assert torch.equal(one, other)


def carried_window(z: np.ndarray, origin: int) -> np.ndarray:
    window = z[origin - L : origin].T
    centred = window - window.mean(axis=1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + SCALE_FLOOR**2)


def forecasts(share: float) -> Forecasts:
    """Errors of a skewed law, and a network whose median says that share of each of them."""
    rng = np.random.default_rng(0)
    error = rng.exponential(size=(400, CHANNELS, P)) - 1
    scale = rng.uniform(0.5, 2, size=(400, CHANNELS, 1))
    answer = (share * error / scale)[:, :, None] + SPREAD
    return Forecasts(error, scale, answer)


@pytest.mark.parametrize(
    ("share", "gate"),
    [
        (0.0, 0.0),  # says nothing
        (-1.0, 0.0),  # only hurts: switched off
        (1.0, 1.0),  # is right
        (2.0, 0.5),  # says too much
        (0.5, 1.2),  # says too little: at most MAX_GATE of it
    ],
)
def test_the_gate_is_what_validation_backs(share: float, gate: float) -> None:
    admission = admit(forecasts(share), SPREAD, LEVELS)
    assert admission.gate == pytest.approx(gate)
    left = forecasts(share).error * (1 - gate * share)
    assert admission.loss == pytest.approx(np.square(left).mean())


@pytest.mark.parametrize("aware", [True, False])
def test_levels_are_learned_where_they_score_better_and_cover_what_they_say(aware: bool) -> None:
    # Windows are calm or wild; only a network that is aware of it knows which.
    rng = np.random.default_rng(0)
    wild = rng.choice([0.1, 3.0], size=(400, CHANNELS, 1))
    error = wild * rng.normal(size=(400, CHANNELS, P))
    width = (wild if aware else 0.1 / wild)[..., None]
    validation = Forecasts(error, np.ones_like(wild), width * SPREAD)

    admission = admit(validation, SPREAD, LEVELS)
    assert admission.learned_levels is aware
    assert admission.uses_network is aware
    centre = validation.answer if aware else SPREAD
    covered = (error[:, :, None] <= centre + admission.shift[..., None]).mean(axis=(0, 3))
    np.testing.assert_allclose(covered, np.broadcast_to(LEVELS, covered.shape), atol=2e-3)


def test_the_carried_memory_is_used_only_where_it_is_no_worse() -> None:
    good, bad, off = (admit(forecasts(share), SPREAD, LEVELS) for share in (1.0, 0.1, -1.0))
    network = make_network()
    assert Residual(network, SPREAD, fresh=bad, carried=good).uses_memory
    assert Residual(network, SPREAD, fresh=good, carried=good).uses_memory
    assert not Residual(network, SPREAD, fresh=good, carried=bad).uses_memory
    trade = dataclasses.replace(good, loss=good.loss - 1e-9, pinball=good.pinball + 1e-3)
    assert not Residual(network, SPREAD, fresh=good, carried=trade).uses_memory
    assert not Residual(network, SPREAD, fresh=off, carried=off).uses_memory


def test_without_a_network_the_levels_are_those_of_the_linear_errors() -> None:
    silent = dataclasses.replace(forecasts(0.0), answer=None)
    assert not admit(silent, SPREAD, LEVELS).uses_network
