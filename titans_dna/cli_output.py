"""What `titans-dna` writes: predictions line by line, and facts about a model as plain values."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from titans_dna.classifier import TitansDNAClassifier
    from titans_dna.regions import Region

__all__ = ["answers_as_text", "class_counts", "facts_of_model", "in_words"]


def answers_as_text(
    frames: Iterable[Any],
    classes: list[Any],
    regions: Iterable[Region] | None = None,
    separator: str | None = ",",
) -> Iterator[str]:
    """Turn predictions into lines, a text for each frame.

    Parameters
    ----------
    frames : iterable of data frames
        As `TitansDNAClassifier.iter_predict` yields them.
    classes : list
        Labels in the order of the probabilities.
    regions : iterable of Region, optional
        Where each row is from, in order: four columns more.
    separator : str, optional
        Between the columns of a table, under one header; None is JSON, an object a line.
    """
    place = ["chrom", "start", "end", "strand"] if regions is not None else []
    places = iter(regions or ())
    header = ["id", *place, "prediction", *(f"p_{label}" for label in classes)]
    for number, frame in enumerate(frames):
        text = io.StringIO()
        writer = csv.writer(text, delimiter=separator or ",", lineterminator="\n")
        if not number and separator is not None:
            writer.writerow(header)
        for name, prediction, *shares in zip(*(frame[c].tolist() for c in frame), strict=True):
            where: list[Any] = []
            if regions is not None:
                region = next(places)
                where = [region.name, region.start, region.end, region.strand]
            if separator is None:
                answer = {"id": name, **dict(zip(place, where, strict=True))}
                answer["prediction"] = prediction
                answer["probabilities"] = dict(zip(map(str, classes), shares, strict=True))
                text.write(json.dumps(answer) + "\n")
            else:
                writer.writerow([name, *where, prediction, *shares])
        yield text.getvalue()


def facts_of_model(classifier: TitansDNAClassifier) -> dict[str, Any]:
    """What there is to know about a fitted classifier, as JSON takes it."""
    from titans_core import __version__

    model = classifier.model_
    parameters = {
        name: asdict(value) if name in ("backbone", "training") and value else value
        for name, value in classifier.get_params().items()
    }
    if classifier.signal_:
        reads = f"{classifier.n_features_in_} numbers a row"
    elif classifier.length_ is not None:
        reads = f"DNA of {classifier.length_} bases"
    else:
        reads = "DNA of any length"
    shares = zip(model.experts, model.blend.weights.tolist(), strict=True)
    facts = {
        "classes": classifier.classes_.tolist(),
        "reads": reads,
        "strands": classifier.strands_,
        "soft_mask": classifier.soft_mask,
        "networks": len(model.networks),
        "weights_of_each": sum(weight.numel() for weight in model.networks[0].parameters()),
        "training_steps": [history.steps for history in classifier.training_histories_],
        "experts": dict(shares),
        "parameters": parameters,
        "version": __version__,
    }
    if model.kinship is not None:
        names = "all experts", model.kinship.words.name
        weights = model.kinship.blend.weights.tolist()
        facts["relatives"] = dict(zip(names, weights, strict=True))
        facts["relatives"]["accuracy held out"] = model.kinship.accuracy
    return facts


def class_counts(labels: Any) -> dict[str, int]:
    """How many sequences each class has.

    Examples
    --------
    >>> import numpy as np
    >>> class_counts(np.array(["b", "a", "b"]))
    {'a': 1, 'b': 2}
    """
    return {str(label): count for label, count in sorted(Counter(labels.tolist()).items())}


def in_words(facts: dict[str, Any]) -> dict[str, Any]:
    r"""The same for people: shares in per cent, a line for each problem.

    Examples
    --------
    >>> in_words({"n_share": 0.25, "problems": ["a", "b"], "warnings": []})
    {'n share': '25.00%', 'problems': 'a\nb', 'warnings': None}
    """
    words: dict[str, Any] = {}
    for name, value in facts.items():
        if name in ("problems", "warnings"):
            value = "\n".join(value) or None
        elif name in ("experts", "relatives"):
            value = {expert: f"{number:.2f}" for expert, number in value.items()}
        elif name == "length" and value is not None:
            value = " / ".join(str(value[key]) for key in ("min", "median", "max"))
            name = "length, min / median / max"
        elif name.endswith("_share"):
            value = f"{value:.2%}"
        words[name.replace("_", " ")] = value
    return words
