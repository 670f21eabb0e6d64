"""The network's promises: company, padding, pieces, strands and unknown bases change no answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from titans_core import AttentionConfig, BackboneConfig, NeuralMemoryConfig
from titans_core.introspection import record_memory
from titans_core.state import map_state
from titans_dna.alphabet import CODES, PAD, UNKNOWN, Tokens, encode, reverse_complement
from titans_dna.batches import like_lengths, take_batch
from titans_dna.members import build_network
from titans_dna.network import NetworkConfig, SequenceNetwork, flip, opposite_strand
from titans_dna.sequences import Sequences
from titans_dna.streaming import _read_back, long_features, opposite

BACKBONE = BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=4), num_blocks=2)
RNG = np.random.default_rng(0)


def network(**changes: Any) -> SequenceNetwork:
    """A network in float64 whose parts all speak up, as if it had been trained."""
    config: dict[str, Any] = {
        "n_classes": 3,
        "length": None,
        "heads": ("pooled",),
        "channels": 12,
        "backbone": BACKBONE,
    }
    built = build_network(NetworkConfig(**config | changes), seed=1).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        for name, buffer in built.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return built.eval()


def tokens(length: int, codes: str = CODES) -> Tokens:
    return encode("".join(RNG.choice(list(codes), length)))


def with_unknown(length: int) -> Tokens:
    """Letters of all kinds with a long run of N, and one at each end."""
    made = tokens(length)
    made[length // 3 : 2 * length // 3] = UNKNOWN
    made[:2] = made[length - 2 :] = UNKNOWN
    return made


def batch(*rows: Tokens) -> Tensor:
    return take_batch(Sequences.from_list(list(rows)), np.arange(len(rows)))


def cells_of(built: SequenceNetwork, row: Tokens) -> Tensor:
    return built.remember(built.cells(*built.embed(batch(row)))).values


def assert_close(one: Tensor, other: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


@pytest.fixture(autouse=True)
def no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.set_grad_enabled("gradient" in request.node.name):
        yield


@pytest.mark.parametrize("equivariant", [False, True])
@pytest.mark.parametrize("pool", [2, 4, 5])
def test_a_row_is_answered_alike_alone_and_beside_longer_ones(equivariant: bool, pool: int) -> None:
    built = network(equivariant=equivariant, pool=pool)
    rows = [*(tokens(n) for n in (1, 2, 3, 7, 16, 17, 33, 64, 90)), with_unknown(41)]
    together = built(batch(*rows))
    for row, expected in zip(rows, together, strict=True):
        assert_close(built(batch(row))[0], expected)
    order = RNG.permutation(len(rows))
    assert_close(built(batch(*(rows[i] for i in order))), together[order.tolist()])
    padded = torch.nn.functional.pad(batch(*rows), (0, 57), value=PAD)
    assert_close(built(padded), together)


def test_batches_of_like_lengths_hold_each_row_once_and_stay_within_their_size() -> None:
    lengths = RNG.integers(1, 300, 200)
    batches = list(like_lengths(lengths, 1000))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(lengths[rows].max() * len(rows) <= 1000 for rows in batches)
    alone = list(like_lengths(np.array([5, 4000]), 1000))
    assert [rows.tolist() for rows in alone] == [[0], [1]]


def test_the_memory_carries_what_the_stem_cannot_see() -> None:
    built = network()
    row = tokens(400, "ACGT")
    changed = row.copy()
    changed[:10] = 3 - changed[:10]
    apart = (cells_of(built, row) - cells_of(built, changed)).abs().amax(1)[0]
    out_of_reach = -(-(10 + built.config.reach) // built.config.pool) + 4
    assert apart[out_of_reach:].max() > 1e-6


@pytest.mark.parametrize("equivariant", [False, True])
@pytest.mark.parametrize("length", [1, 5, 16, 17, 63, 64, 100, 257])
def test_reading_in_pieces_is_reading_as_a_whole(length: int, equivariant: bool) -> None:
    built = network(equivariant=equivariant)
    for row in (with_unknown(length), np.full(length, UNKNOWN, np.uint8)):
        (whole,) = built.features(*built.embed(batch(row)))
        for piece_bases in (16, 40, 1000):
            (found,) = long_features(
                built, lambda a, b, row=row: row[a:b], length, piece_bases=piece_bases
            )
            assert_close(found, whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": 2, "cells_per_token": 8},
        {"pool": 2, "cells_per_token": 1},
        {"pool": 5, "cells_per_token": 3},
        {"width": 19, "dilations": (1, 2, 4)},
        {"residual_width": 9, "dilations": (3,)},
        {"dilations": ()},
        {"backbone": None},
        {"backbone": BackboneConfig(memory=NeuralMemoryConfig(dim=8, chunk_size=5, depth=1))},
        {
            "backbone": BackboneConfig(
                memory=NeuralMemoryConfig(dim=8, chunk_size=3), num_persistent_tokens=4
            )
        },
    ],
)
def test_networks_of_other_shapes_are_read_in_pieces_too(changes: dict[str, Any]) -> None:
    built = network(**changes)
    row = with_unknown(123)
    (whole,) = built.features(*built.embed(batch(row)))
    for piece_bases in (16, 60):
        (found,) = long_features(built, lambda a, b: row[a:b], 123, piece_bases=piece_bases)
        assert_close(found, whole)


@pytest.mark.parametrize("block", ["mac", "mag", "mal"])
def test_states_of_all_pieces_are_kept_in_one_place(block: str) -> None:
    attention = AttentionConfig(num_heads=2, window=8)
    memory = NeuralMemoryConfig(dim=8, chunk_size=4)
    built = network(backbone=BackboneConfig(memory=memory, block=block, attention=attention))
    row = with_unknown(300)
    (whole,) = built.features(*built.embed(batch(row)))
    (found,) = long_features(built, lambda a, b: row[a:b], 300, piece_bases=64)
    assert_close(found, whole)

    _, *kept = _read_back(built, lambda a, b: row[a:b], 300, range(0, 300, 64), 64)
    assert len(kept) == 4

    def tensors(state: Any) -> list[Tensor]:
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        map_state(note, state)
        return found

    # Else small tensors lie between large ones, and the heap grows by 27 bytes a base.
    for alike in zip(*map(tensors, kept), strict=True):
        assert len({tensor.untyped_storage().data_ptr() for tensor in alike}) == 1
        assert len({tensor.data_ptr() for tensor in alike}) == len(alike)


def test_pieces_are_all_that_is_asked_for() -> None:
    built, row, asked = network(), tokens(1000, "ACGT"), []

    def read(start: int, stop: int) -> Tokens:
        asked.append(stop - start)
        return row[start:stop]

    long_features(built, read, 1000, piece_bases=64)
    step = built.config.pool
    assert max(asked) <= 64 + 2 * (built.config.reach + step)


@pytest.mark.parametrize("heads", [("pooled",), ("positional", "pooled")])
def test_an_equivariant_network_reads_either_strand_alike(heads: tuple[str, ...]) -> None:
    for length in (1, 4, 6, 16, 33, 57):
        built = network(equivariant=True, heads=heads, length=length)
        for row in (tokens(length), with_unknown(length) if length > 4 else tokens(length)):
            assert_close(built(batch(row)), built(batch(reverse_complement(row))))


def test_a_network_of_one_strand_tells_the_strands_apart() -> None:
    row = tokens(57)
    built = network()
    assert (built(batch(row)) - built(batch(reverse_complement(row)))).abs().max() > 1e-3


def test_the_opposite_strand_of_a_batch_is_that_of_each_row() -> None:
    rows = [tokens(n) for n in (1, 6, 13, 20)]
    rows.append(encode("acgTNryn"))
    expected = batch(*map(reverse_complement, rows))
    assert torch.equal(opposite_strand(batch(*rows)), expected)
    read = opposite(lambda a, b: rows[3][a:b], 20)
    np.testing.assert_array_equal(read(3, 17), reverse_complement(rows[3])[3:17])


def test_flip_turns_each_row_within_its_length() -> None:
    x = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 7, 8]])
    expected = torch.tensor([[3, 2, 1, 0], [4, 0, 0, 0], [8, 7, 6, 5]])
    assert torch.equal(flip(x, x > 0), expected)
    assert torch.equal(flip(x[..., None].expand(-1, -1, 2), x > 0)[..., 1], expected)


def test_unknown_bases_and_padding_never_write_the_memory() -> None:
    built = network()
    size = built.config.token_bases
    row = tokens(12 * size, "ACGT")
    row[3 * size : 7 * size] = UNKNOWN
    short = tokens(5 * size + 1, "ACGT")
    with record_memory(built) as records:
        built(batch(row, short))
    assert len(records) == BACKBONE.num_blocks
    for record in records.values():
        surprise = record.surprise[:, BACKBONE.prefix_length :, 0]
        onward, back = surprise[0], surprise[2]
        assert (onward[3:7] == 0).all()
        assert (onward[:3] > 0).all()
        assert (onward[7:] > 0).all()
        assert (back[5:9] == 0).all()
        assert (surprise[1, 6:] == 0).all()
        assert (surprise[3, 6:] == 0).all()
        assert (surprise[3, :6] > 0).all()


def test_the_state_after_a_run_of_unknown_bases_is_the_state_before_it() -> None:
    built = network()
    size = built.config.token_bases
    bases = tokens(8 * size, "ACGT")

    def state_after(row: Tokens) -> list[Tensor]:
        cells = built.cells(*built.embed(batch(row)))
        read, _, writes = built.tokens(cells)
        # Whatever the tokens of the run are, no memory is written with them.
        read = torch.where(writes[..., None], read, torch.randn_like(read))
        _, state = built.backbone(read[:, : len(row) // size], mask=writes)
        return [w for block in state.blocks for w in block.memory.weights]

    run = np.full(4 * size, UNKNOWN, np.uint8)  # the stem sees no further than this
    once, thrice = (np.concatenate([bases, np.tile(run, n)]) for n in (1, 3))
    for one, other in zip(state_after(once), state_after(thrice), strict=True):
        assert torch.equal(one, other)


def test_a_token_with_one_known_base_is_written() -> None:
    built = network()
    row = np.full(32, UNKNOWN, np.uint8)
    row[20] = 2
    *_, writes = built.tokens(built.cells(*built.embed(batch(row))))
    assert writes.tolist() == [[False, True]]


@pytest.mark.parametrize(
    "changes",
    [{}, {"pool": 2}, {"width": 5, "pool": 3}, {"residual_width": 3, "dilations": (1, 2, 4)}],
)
def test_a_cell_depends_on_its_reach_and_no_further(changes: dict[str, Any]) -> None:
    config = network(backbone=None, **changes).config
    built = network(backbone=None, **changes)
    pool, length = config.pool, 60 * config.pool
    row = tokens(length, "ACGT")
    x, present, writes = built.embed(batch(row))
    farthest = 0
    middle = 30
    expected = built.cells(x, present, writes).values[..., middle]
    for base in range(length):
        bent = x.clone()
        bent[:, base] += 100 * (1 - bent[:, base])  # large, so that it wins every maximum
        moved = not torch.equal(built.cells(bent, present, writes).values[..., middle], expected)
        if moved:
            distance = max(middle * pool - base, base - (middle * pool + pool - 1))
            farthest = max(farthest, distance)
    assert farthest <= config.reach
    assert farthest >= config.reach - 2 * pool


@pytest.mark.parametrize("equivariant", [False, True])
def test_gradients_are_finite_also_of_rows_without_a_known_base(equivariant: bool) -> None:
    built = network(equivariant=equivariant).train()
    rows = [np.full(40, UNKNOWN, np.uint8), tokens(1), tokens(90), with_unknown(60)]
    loss = torch.nn.functional.cross_entropy(
        built(batch(*rows)).flatten(0, 1), torch.tensor([0, 1, 2, 0])
    )
    loss.backward()  # type: ignore[no-untyped-call]  # torch's own
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    stem = built.stem.weight.grad
    assert stem is not None
    assert stem.abs().max() > 0


def test_the_gradient_at_the_bases_is_that_of_finite_differences() -> None:
    built = network()
    x, present, writes = built.embed(batch(tokens(30, "ACGT")))
    x = x.double() + 0.1 * torch.rand(x.shape, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    built.read(leaf, present, writes)[0, 0, 1].backward()
    direction = torch.randn_like(x)
    step = 1e-6
    up, down = (built.read(x + s * direction, present, writes)[0, 0, 1] for s in (step, -step))
    assert leaf.grad is not None
    slope = (leaf.grad * direction).sum()
    torch.testing.assert_close((up - down) / (2 * step), slope, rtol=1e-4, atol=1e-8)


def test_statistics_of_training_do_not_count_the_padding() -> None:
    rows = batch(tokens(30), tokens(44), tokens(7))
    padded = torch.nn.functional.pad(rows, (0, 64), value=PAD)
    found = []
    for inputs in (rows, padded):
        torch.manual_seed(0)
        built = network(dropout=0.0).train()
        built(inputs)
        found.append([b for name, b in built.named_buffers() if "running" in name])
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


def test_a_mixture_is_read_as_the_mean_of_its_bases() -> None:
    built = network()
    mixed, *_ = built.embed(batch(encode("RYN")))
    bases, *_ = built.embed(batch(encode("AGCT")))
    a, g, c, t = bases[0]
    assert torch.equal(mixed[0], torch.stack([(a + g) / 2, (c + t) / 2, (a + c + g + t) / 4]))


def test_soft_masked_bases_are_read_like_others_by_the_network() -> None:
    built = network()
    upper = tokens(50, "ACGTRN")
    assert torch.equal(built(batch(upper)), built(batch(upper | 16)))


def test_a_network_is_drawn_alike_and_leaves_the_random_state_alone() -> None:
    config = NetworkConfig(n_classes=2, length=None, heads=("pooled",), backbone=BACKBONE)
    before = torch.get_rng_state()
    one, other = build_network(config, 5), build_network(config, 5)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == torch.float32


def test_a_positional_head_needs_a_length() -> None:
    with pytest.raises(ValueError, match="positional head needs the `length` of all sequences"):
        network(heads=("positional",))


def test_numbers_are_read_by_a_network_of_signals() -> None:
    built = network(signal=True, length=21, heads=("positional", "pooled"))
    x = torch.randn(5, 21, dtype=torch.float64)
    logits = built(x)
    assert logits.shape == (5, 2, 3)
    assert_close(built(x[3:4]), logits[3:4])


def test_a_crop_longer_than_a_batch_is_the_middle_of_the_record():
    from titans_dna.inference import BATCH_BASES, probabilities

    network = SequenceNetwork(NetworkConfig(n_classes=2, length=None, heads=("pooled",))).eval()
    bases = np.random.default_rng(0).integers(0, 4, BATCH_BASES + 4096).astype(np.uint8)
    crop = BATCH_BASES + 1000
    start = (len(bases) - crop) // 2
    row = np.array([0])
    whole = Sequences.from_list([bases])
    middle = Sequences.from_list([bases[start : start + crop]])
    cropped = probabilities(network, whole, row, crop=crop)
    np.testing.assert_array_equal(cropped, probabilities(network, middle, row))
    assert not np.array_equal(cropped, probabilities(network, whole, row))
