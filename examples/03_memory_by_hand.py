"""The memory as a plain function: store one pair, read it back, forget it."""

import torch

from titans_core.ops import neural_memory

key = torch.tensor([1.0, 0.0]).expand(1, 6, 1, 2)  # one unit key, six times: (B, T, H, D)
value = torch.tensor([3.0, -1.0]).expand(1, 6, 1, 2)
empty = [torch.zeros(1, 2, 2)]  # a linear memory that knows nothing


def gate(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, -1, 1)


# A step of 1/4 on ||M(k) - v||^2 halves the error each time; then three tokens only forget half.
learn = gate(0.25, 0.25, 0.25, 0, 0, 0)
forget = gate(0, 0, 0, 0.5, 0.5, 0.5)
y, state = neural_memory(key, key, value, learn, gate(*[0] * 6), forget, empty, chunk_size=1)
print("what M(k) says after each token, for a value of [3, -1]:")
print(y[0, :, 0])
