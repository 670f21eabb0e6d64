"""What is asked of a classifier about one sequence, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from titans_dna.alphabet import Tokens
from titans_dna.inputs import prepare
from titans_dna.sequences import Sequences, read_sequences

if TYPE_CHECKING:
    from titans_dna.classifier import TitansDNAClassifier

Array = NDArray[np.float64]


def read_one(classifier: TitansDNAClassifier, sequence: Any) -> tuple[Tokens, Tokens]:
    """Tokens of one sequence: as given, and as the model reads them."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(classifier, "model_")
    if classifier.signal_:
        raise ValueError(
            "this classifier was fitted on numbers; only what was fitted on DNA is explained."
        )
    given = read_sequences(
        sequence if isinstance(sequence, Sequences) else [sequence], name="sequence"
    )
    if len(given) != 1:
        raise ValueError(f"one sequence is explained at a time; got {len(given)}.")
    return given[0], prepare(classifier, given)[0]


def class_number(classifier: TitansDNAClassifier, tokens: Tokens, target: Any) -> int:
    """Number of the class that is asked about; None asks about the predicted one."""
    if target is None:
        return int(log_probabilities(classifier, tokens[None]).argmax())
    classes = classifier.classes_.tolist()
    if target not in classes:
        raise ValueError(f"target must be one of the classes {classes}; got {target!r}.")
    return classes.index(target)


def log_probabilities(classifier: TitansDNAClassifier, tokens: Tokens) -> Array:
    """What the classifier says of tokens ``(n, L)``, as the model reads them: ``(n, K)``."""
    return classifier.model_.log_probabilities(Sequences.from_list(list(tokens)))


def check_length(tokens: Tokens, most: int, what: str) -> None:
    """Refuse what would not fit into memory."""
    if len(tokens) > most:
        raise ValueError(
            f"{what} at most {most} bases; the sequence has {len(tokens)}. Cut out the part that "
            "you want to understand."
        )
