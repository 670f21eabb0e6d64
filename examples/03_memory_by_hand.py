"""The memory by hand: write pairs, read them back, be surprised, overwrite one, forget."""

import torch

from titans_core.ops import MemoryForm, apply_memory, neural_memory

torch.set_printoptions(precision=3, sci_mode=False)
keys = torch.eye(3)  # three unit keys with nothing in common
values = torch.tensor([[3.0, -1.0, 0.0], [0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
empty = [torch.zeros(1, 3, 3)]  # a matrix memory that knows nothing: (H, D, D)


def write(key, value, state=None, *, step=0.5, forget=0.0):
    """Write tokens ``(T, 3)``; what a query reads right after each write, the state, the surprise.

    A step of 1/2 on ||M(k) - v||^2 with a unit key stores the value in one go.
    """
    k, v = key[None, :, None], value[None, :, None]  # (B, T, H, D)
    gate, trace = torch.ones(1, len(key), 1), []
    read, state = neural_memory(
        k, k, v, step * gate, None, forget * gate, empty, state=state, chunk_size=1, trace=trace
    )
    return read[0, :, 0], state, trace[0].surprise.flatten()


def recall(state, key):
    """Read without writing: the state is the memory's weights, there is nothing else."""
    return apply_memory(state.weights, key[None, None], MemoryForm())[0, 0]


_, state, surprise = write(keys, values)
print("three pairs written once; surprise", surprise)
print("read back:", recall(state, keys), sep="\n")
print("a key between the first two recalls a mix:", recall(state, keys[:2].mean(dim=0)[None])[0])

_, same, surprise = write(keys[:1], values[:1], state)
print("\nthe first pair again: surprise", surprise)
new = torch.tensor([[-3.0, 0.0, 5.0]])
_, changed, surprise = write(keys[:1], new, state)
print("its key with another value: surprise", surprise)
print("only that one changed:", recall(changed, keys), sep="\n")

read, slow, surprise = write(keys[:1].expand(4, 3), values[:1].expand(4, 3), step=0.25)
print("\nhalf the step leaves half of the error each time: surprise", surprise)
print("read after each write:", read, sep="\n")

nothing = torch.zeros(3, 3)
_, faded, _ = write(nothing, nothing, state, step=0.0, forget=0.5)
print("\nhalf forgotten three times, an eighth is left:", recall(faded, keys), sep="\n")
