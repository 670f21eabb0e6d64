"""One stream through the four blocks: cut anywhere, a state of one size, and surprise to watch."""

import torch

from titans_core import (
    AttentionConfig,
    Backbone,
    BackboneConfig,
    NeuralMemoryConfig,
    map_state,
    record_memory,
)

DIM, PERIOD, TOKENS = 32, 8, 320
CUTS = (1, 2, 33, 100, 101, 237)  # odd places: inside chunks, segments and windows

# A motif of 8 random tokens repeats until token 160; then another one takes over.
torch.manual_seed(0)
motifs = torch.randn(2, PERIOD, DIM).repeat_interleave(TOKENS // 2 // PERIOD, dim=0)
tokens = motifs.reshape(1, TOKENS, DIM)

memory = NeuralMemoryConfig(dim=DIM, num_heads=2, chunk_size=8)
attention = AttentionConfig(num_heads=2, window=16, num_persistent_tokens=4)


def size(state):
    """Count the numbers in a state."""
    sizes = []
    map_state(lambda tensor: sizes.append(tensor.numel()), state)
    return sum(sizes)


print("block  whole - cut  numbers in the state after    mean surprise of 16 tokens")
print("                    1 token      320 tokens       new motif, known, new motif, known")
for block in ("lmm", "mac", "mag", "mal"):
    torch.manual_seed(0)  # untrained weights: the two equalities hold for any
    config = BackboneConfig(
        memory=memory, block=block, attention=None if block == "lmm" else attention, num_blocks=1
    )
    backbone = Backbone(config)
    with torch.no_grad():
        with record_memory(backbone) as records:
            whole, end = backbone(tokens)

        outputs, states, state = [], [], None
        for piece in tokens.tensor_split(CUTS, dim=1):
            y, state = backbone(piece, state)
            outputs.append(y)
            states.append(state)
    difference = (torch.cat(outputs, dim=1) - whole).abs().max()
    assert difference < 1e-4  # rounding
    assert size(states[0]) == size(end)  # however long the stream

    (record,) = records.values()
    surprise = record.surprise[0, -TOKENS:].mean(dim=-1)  # without the persistent tokens
    means = surprise.unflatten(0, (-1, 16)).mean(dim=-1)
    seen = "  ".join(f"{means[i]:5.2f}" for i in (0, 9, 10, 19))
    sizes = f"{size(states[0]):6}       {size(end):6}"
    print(f"{block}    {difference:7.0e}      {sizes}           {seen}")
