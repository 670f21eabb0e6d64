"""Why a classifier says what it says of one sequence: which bases count, and what surprised it.

Log-odds of a class are the logarithm of its probability over that of all others: of the second of
two classes, what `decision_function` gives. Scores are arrays of a row for each base and columns A,
C, G, T, as the plots of `titans_dna.plots` take them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from titans_dna.alphabet import MIXTURES, Tokens
from titans_dna.kmer_counting import is_int
from titans_dna.model import Model
from titans_dna.questions import check_length, class_number, log_probabilities, read_one
from titans_dna.surprise import memory_surprise

if TYPE_CHECKING:
    from titans_dna.classifier import TitansDNAClassifier

__all__ = [
    "gradient_times_input",
    "in_silico_mutagenesis",
    "integrated_gradients",
    "memory_surprise",
]

Array = NDArray[np.float64]

_READ_BASES = 2**20  # of variants at a time
_MOST_READ = 3 * 10**7  # of variants in all: minutes
_GRADIENT_BASES = 2**15  # of points on the way from the baseline at a time
_LONGEST_GRADIENT = 2**16
_SHUFFLES = 8


def in_silico_mutagenesis(
    classifier: TitansDNAClassifier,
    sequence: Any,
    *,
    target: Any = None,
    start: int = 0,
    stop: int | None = None,
) -> Array:
    """Change each base to each other one, and see what the whole classifier then says.

    Parameters
    ----------
    classifier : TitansDNAClassifier
        Fitted on DNA.
    sequence : str, bytes, Biopython Seq or SeqRecord, or tokens
        One sequence, of L bases.
    target : label, optional
        Class whose log-odds are watched; None takes the one predicted for the sequence.
    start, stop : int
        Change the bases of ``[start, stop)`` only, counted from 0; by default all. Every change
        costs a reading of the whole sequence: 3 L (stop - start) bases in all.

    Returns
    -------
    ndarray of shape (stop - start, 4)
        Log-odds with this base here, less those of the sequence as it is: below 0 where a change
        speaks against the class. Exactly 0 for the base that stands there. An unknown or ambiguous
        base is none of the four, so all are compared with it; a base that ``soft_mask="mask"``
        hides stays hidden, and its changes are 0.

    Raises
    ------
    ValueError
        The classifier was fitted on numbers, there is not one sequence, the target is no class,
        the window is not within the sequence, or it is too long.

    Notes
    -----
    ``-changes.sum(1, keepdims=True) / 3 * (changes == 0)`` are scores for a logo: what each base
    is worth, compared with the mean of the other three.
    """
    given, tokens = read_one(classifier, sequence)
    length = len(tokens)
    stop = length if stop is None else stop
    if not 0 <= start < stop <= length:
        raise ValueError(
            f"start and stop must be 0 <= start < stop <= {length}, the bases of the sequence; got "
            f"start={start}, stop={stop}."
        )
    if 3 * (stop - start) * length > _MOST_READ:
        most = _MOST_READ // (3 * length)
        raise ValueError(
            f"the changes of {stop - start} bases in a sequence of {length} are "
            f"{3 * (stop - start) * length:.1e} bases to read. Choose a window with `start` and "
            + (f"`stop`, of {most} bases at most." if most else "cut the sequence around it.")
        )
    number = class_number(classifier, tokens, target)
    codes, hidden = tokens[start:stop, None] & 15, (tokens != given)[start:stop, None]
    wanted = (codes != np.arange(4)) & ~hidden
    places, bases = np.nonzero(wanted)
    before = _log_odds(log_probabilities(classifier, tokens[None]), number)
    changes = np.zeros(wanted.shape)
    rows = max(1, _READ_BASES // length)
    for first in range(0, len(places), rows):
        place, base = places[first : first + rows], bases[first : first + rows]
        variants = np.repeat(tokens[None], len(place), axis=0)
        variants[np.arange(len(place)), start + place] = base
        changes[place, base] = _log_odds(log_probabilities(classifier, variants), number) - before
    return changes


def gradient_times_input(
    classifier: TitansDNAClassifier, sequence: Any, *, target: Any = None
) -> Array:
    """What each base is worth to first order, by one backward pass through the networks.

    It explains the networks' part of the decision only: k-mers and kernels have no gradient. Of
    two classes the log-odds are a sum over networks and other experts, each with its weight of the
    blend (``classifier.model_.blend``), and this is the networks' summand, in its units; of
    relatives of the training sequences, before their long words are heard
    (``classifier.model_.kinship``).
    `in_silico_mutagenesis` explains the whole classifier.

    Parameters
    ----------
    classifier, sequence, target
        As in `in_silico_mutagenesis`.

    Returns
    -------
    ndarray of shape (L, 4)
        At the base that stands there, the slope of the log-odds toward it from equal shares of all
        four; 0 elsewhere. An ambiguous base has its row shared out.

    Raises
    ------
    ValueError
        As in `in_silico_mutagenesis`; or the networks have no weight in the blend, or the sequence
        is longer than 65,536 bases.

    Notes
    -----
    Shares of bases sum to one, and what a gradient says of leaving that plane is noise: its mean
    over the four is taken off (Majdandzic et al., Genome Biology 24:109, 2023).
    """
    tokens, number = _differentiable(classifier, sequence, target)
    x, present, writes = _embed(classifier.model_, tokens)
    gradient = _gradient(classifier.model_, x, present, writes, number)
    slopes = gradient - gradient.mean(-1, keepdim=True)
    return _numbers((slopes * x).sum(-1, keepdim=True) * x)


def integrated_gradients(
    classifier: TitansDNAClassifier,
    sequence: Any,
    *,
    target: Any = None,
    baseline: str = "uniform",
    steps: int = 32,
    random_state: int = 0,
) -> Array:
    """What each base adds, on the way from a baseline to the sequence, to the networks' log-odds.

    Like `gradient_times_input` it explains the networks' part of the decision only, but with a sum
    that means something: all scores sum to the networks' log-odds for the sequence, less those for
    the baseline, up to the error of the integral, which falls with the steps.

    Parameters
    ----------
    classifier, sequence, target
        As in `in_silico_mutagenesis`.
    baseline : {"uniform", "shuffled"}
        Equal shares of the four bases at every place, which the memory goes on being written with
        (a sequence of N, which it is not, is read otherwise); or the known bases in random order,
        and the mean over eight orders: closer to what the networks have seen, and noisier.
    steps : int
        Points on the way.
    random_state : int
        Seed of the orders.

    Returns
    -------
    ndarray of shape (L, 4)
        0 but for the base that stands there; an ambiguous one has its row shared out.

    Raises
    ------
    ValueError
        As in `gradient_times_input`.

    Notes
    -----
    Sundararajan, Taly, Yan (arXiv 1703.01365), by the midpoint rule.
    """
    if not (is_int(steps) and steps >= 1):
        raise ValueError(f"`steps` must be an int >= 1; got {steps!r}.")
    if baseline not in ("uniform", "shuffled"):
        raise ValueError(f"`baseline` must be 'uniform' or 'shuffled'; got {baseline!r}.")
    tokens, number = _differentiable(classifier, sequence, target)
    x, present, writes = _embed(classifier.model_, tokens)
    ways = (torch.arange(int(steps), dtype=x.dtype, device=x.device) + 0.5) / steps
    rows = max(1, _GRADIENT_BASES // len(tokens))
    references = _references(classifier.model_, tokens, x, baseline, random_state)
    total = torch.zeros_like(x[0])
    for reference in references:
        for way in ways.split(rows):
            points = reference + way[:, None, None] * (x - reference)
            gradient = _gradient(classifier.model_, points, present, writes, number)
            total += (x[0] - reference) * gradient.sum(0)
    return _numbers(total.sum(-1, keepdim=True) * x / (len(references) * steps))


def _log_odds(logs: Array, target: int) -> Array:
    odds: Array = logs[:, target] - np.logaddexp.reduce(np.delete(logs, target, axis=1), axis=1)
    return odds


def _differentiable(
    classifier: TitansDNAClassifier, sequence: Any, target: Any
) -> tuple[Tokens, int]:
    _, tokens = read_one(classifier, sequence)
    check_length(tokens, _LONGEST_GRADIENT, "gradients are taken of")
    if not _head_weights(classifier.model_).any():
        raise ValueError(
            "this classifier's blend gives its networks no weight, so their gradients explain "
            "nothing of what it says. Use in_silico_mutagenesis, which explains the whole of it."
        )
    return tokens, class_number(classifier, tokens, target)


def _head_weights(model: Model) -> Array:
    n_heads = len(model.networks[0].config.heads) if model.networks else 0
    return model.blend.weights[:n_heads]


def _embed(model: Model, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    network = model.networks[0]
    return network.embed(torch.from_numpy(tokens.copy())[None].to(network.stem.weight.device))


def _network_log_odds(
    model: Model, x: Tensor, present: Tensor, writes: Tensor, target: int
) -> Tensor:
    """The blend of the heads alone, for mixtures ``(B, L, 4)`` without padding: ``(B,)``."""
    strands = [(x, present, writes)]
    if model.both_strands:
        strands.append((x.flip(1, 2), present, writes.flip(1)))
    said = [network.read(*strand) for network in model.networks for strand in strands]
    mean = torch.stack(said).log_softmax(-1).logsumexp(0) - math.log(len(said))
    weights = torch.as_tensor(_head_weights(model), dtype=mean.dtype, device=mean.device)
    scores = (weights[:, None] * mean).sum(1)
    others = [k for k in range(scores.shape[1]) if k != target]
    return scores[:, target] - scores[:, others].logsumexp(-1)


def _gradient(model: Model, x: Tensor, present: Tensor, writes: Tensor, target: int) -> Tensor:
    x = x.detach().requires_grad_()
    masks = present.expand(x.shape[:2]), writes.expand(x.shape[:2])
    with torch.enable_grad():
        log_odds = _network_log_odds(model, x, *masks, target)
        (gradient,) = torch.autograd.grad(log_odds.sum(), x)
    return gradient


def _references(
    model: Model, tokens: Tokens, x: Tensor, baseline: str, random_state: int
) -> list[Tensor]:
    if baseline == "uniform":
        return [torch.full_like(x[0], 0.25)]
    known = np.flatnonzero(MIXTURES[tokens & 15].max(axis=1) == 1)
    generator = np.random.default_rng(random_state)
    references = []
    for _ in range(_SHUFFLES):
        shuffled = tokens.copy()
        shuffled[known] = generator.permutation(tokens[known])
        references.append(_embed(model, shuffled)[0][0])
    return references


def _numbers(scores: Tensor) -> Array:
    found: Array = scores[0].double().cpu().numpy()
    return found
