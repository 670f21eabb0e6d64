"""``titans-dna fit | predict | report | check | leaks | split | info``: the classifier in a shell.

Standard output holds results and nothing else; progress, tables and errors go to standard error.
A file that is written appears whole or not at all. Only typer is imported at the start: torch and
polars wait until a command needs them.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import chain, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from titans_core.cli import (
    STDOUT,
    about,
    check_output_name,
    make_app,
    print_facts,
    separator_of,
    show_version,
    user_errors,
    write_texts,
)
from titans_core.files import check_apart, check_target
from titans_dna.cli_input import (
    STDIN,
    AsJson,
    Bed,
    ClassWeight,
    Column,
    File,
    Files,
    Head,
    K,
    Labels,
    ModelFile,
    Quiet,
    Seed,
    SkipRepeats,
    SoftMask,
    Strands,
    as_source,
    check_genome,
    check_lengths,
    name_of,
    read_all,
    read_labelled,
    regions_of,
    windows_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from titans_core.training_config import TrainingConfig
    from titans_dna.regions import Region

app = make_app("Classify DNA: FASTA in, trustworthy classes out.")


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=show_version("titans-dna"),
            is_eager=True,
            help="Show the version.",
        ),
    ] = False,
) -> None:
    """Classify DNA: FASTA in, trustworthy classes out."""


@app.command()
@user_errors("titans-dna")
def fit(
    sequences: Files,
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write.")],
    labels: Labels = None,
    bed: Bed = None,
    column: Column = None,
    head: Annotated[Head, typer.Option(help="Weights by place, pooled, or both.")] = Head.AUTO,
    reverse_complement: Annotated[Strands, typer.Option(help="The other strand.")] = Strands.AUTO,
    class_weight: Annotated[ClassWeight | None, typer.Option(help="Of rare classes.")] = None,
    soft_mask: Annotated[SoftMask, typer.Option(help="Lower-case bases.")] = SoftMask.KEEP,
    n_networks: Annotated[int, typer.Option(min=1, help="Networks to average.")] = 3,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Training steps, at most.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Learn classes from labelled sequences; write a model."""
    source = as_source(sequences)
    for path in sequences:
        check_apart(output, {"the sequences": path, "the regions": bed})
    if labels is not None and Path(labels).is_file():
        check_apart(output, {"the labels": Path(labels)})
    check_target(output)  # now, not after minutes of training
    begun = time.perf_counter()
    read, y = read_labelled(source, labels, column, bed)
    from titans_dna.classifier import TitansDNAClassifier
    from titans_dna.cli_output import class_counts, facts_of_model, in_words

    classifier = TitansDNAClassifier(
        head=head.value,
        reverse_complement=None if reverse_complement is Strands.NONE else reverse_complement.value,
        n_networks=n_networks,
        training=None if max_steps is None else _training(len(read), max_steps),
        class_weight=None if class_weight is None else class_weight.value,
        soft_mask=soft_mask.value,
        random_state=seed,
        progress=not quiet,
    )
    with about(bed or name_of(source)):
        classifier.fit(read, y)
    classifier.save(output)
    if not quiet:
        facts = facts_of_model(classifier)
        for name in ("parameters", "version", "soft_mask"):  # which the user just gave, and has
            del facts[name]
        facts["classes"] = class_counts(y)
        held_out = classifier.held_out_
        if len(held_out):
            said = classifier.classes_[classifier.held_out_probabilities_.argmax(1)]
            facts["accuracy_held_out"] = f"{(said == y[held_out]).mean():.3f}"
        facts["seconds"] = round(time.perf_counter() - begun, 1)
        print_facts(in_words(facts), to_stderr=True)


@app.command()
@user_errors("titans-dna")
def predict(
    model: ModelFile,
    sequences: File,
    bed: Annotated[Path | None, typer.Option(help="Regions of SEQUENCES to predict.")] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Predict windows of so many bases along SEQUENCES.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Bases from one window to the next; left out: all.")
    ] = None,
    column: Column = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File; - is stdout.")] = STDOUT,
    as_json: Annotated[bool, typer.Option("--json", help="Write an object a line.")] = False,
) -> None:
    """Predict the class of every sequence, in a stream."""
    check_output_name(output, as_json)
    if output != STDOUT:
        check_apart(output, {"the model": model, "the sequences": sequences, "the regions": bed})
        check_target(output)
    from titans_dna.classifier import TitansDNAClassifier
    from titans_dna.cli_output import answers_as_text
    from titans_dna.regions import iter_regions
    from titans_dna.tables import is_table_path

    classifier = TitansDNAClassifier.load(model)
    if column is not None:
        if not is_table_path(sequences):
            raise ValueError(f"`column` is for tables; {sequences} is FASTA. Leave it out.")
        classifier.set_params(column=column)
    source: Any = as_source([sequences])
    regions: Iterable[Region] | None = None
    if window is not None:
        if bed is not None:
            raise ValueError("--bed and --window both say what to predict; give one of them")
        check_genome(source, "--window")
        windows = windows_of(sequences, window, step, classifier.length_)
        regions, taken = tee(windows)  # one a batch ahead of the other
        source = iter_regions(sequences, taken)
    elif step is not None:
        raise ValueError("--step is from one window to the next; give --window, too")
    elif bed is not None:
        check_genome(source)
        regions = regions_of(bed)
        records = iter_regions(sequences, regions)
        first = next(records)  # by now all of them have been found in the genome
        check_lengths(regions, classifier.length_)
        source = chain([first], records)
    with about(name_of(bed or source)):
        frames = classifier.iter_predict(source)
        classes = classifier.classes_.tolist()
        separator = None if as_json else separator_of(output)
        write_texts(output, answers_as_text(frames, classes, regions, separator))


@app.command()
@user_errors("titans-dna")
def report(
    model: ModelFile,
    sequences: Files,
    labels: Labels = None,
    bed: Bed = None,
    column: Column = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on labelled sequences it has not seen, beside k-mers alone."""
    from titans_dna.classifier import TitansDNAClassifier

    classifier = TitansDNAClassifier.load(model)
    source = as_source(sequences)
    read, y = read_labelled(source, labels, column, bed)
    classifier.set_params(column=None)  # what is passed on is no table any more
    with about(bed or name_of(source)):
        scores = classifier.score_report(read, y)
    typer.echo(json.dumps(scores.to_dict(), indent=2) if as_json else str(scores))


@app.command()
@user_errors("titans-dna")
def check(
    sequences: Annotated[
        Path, typer.Argument(metavar="FILE", help="As for `fit`, or BED by its suffix.")
    ],
    bed: Annotated[Path | None, typer.Option(help="Regions that FILE must have.")] = None,
    column: Column = None,
    as_json: AsJson = False,
) -> None:
    """Read a file to its end; exit code 1 if it has problems."""
    from titans_dna.cli_check import check_regions, check_sequences, is_bed_path
    from titans_dna.cli_output import in_words

    for path in (sequences, bed):
        if path is not None and path != STDIN and not path.exists():
            raise FileNotFoundError(f"there is no file or folder '{path}'; check the path")
    if bed is not None:
        facts = check_regions(as_source([bed]), sequences)
    elif is_bed_path(sequences):
        facts = check_regions(as_source([sequences]))
    else:
        facts = check_sequences(as_source([sequences]), column=column)
    typer.echo(json.dumps(facts, indent=2)) if as_json else print_facts(in_words(facts))
    if facts["problems"]:
        raise typer.Exit(1)


@app.command()
@user_errors("titans-dna")
def leaks(
    train: Annotated[Path, typer.Argument(metavar="TRAIN", help="Learned from.")],
    test: Annotated[Path, typer.Argument(metavar="TEST", help="Scored on.")],
    labels: Labels = None,
    column: Column = None,
    k: K = 30,
    skip_repeats: SkipRepeats = False,
    fail_over: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit 1 if more overlaps.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV of all pairs to write.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Count the test sequences that share a stretch with training ones."""
    if output is not None:
        check_output_name(output, as_json=False)
        check_apart(output, {"the training part": train, "the test part": test})
        check_target(output)
    from titans_dna.leaks import leak_report

    y_train = y_test = None
    if labels is not None:
        train_part, y_train = read_labelled(as_source([train]), labels, column)
        test_part, y_test = read_labelled(as_source([test]), labels, column)
    else:
        train_part = read_all(as_source([train]), column)
        test_part = read_all(as_source([test]), column)
    found = leak_report(
        train_part, test_part, k, y_train=y_train, y_test=y_test, skip_repeats=skip_repeats
    )
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    if output is not None:
        pairs = found.to_frame()
        text = pairs.to_csv(index=False, lineterminator="\n", sep=separator_of(output))
        write_texts(output, [text])
    share = found.to_dict()["share_overlapping"]
    if fail_over is not None and share > fail_over:
        typer.echo(f"titans-dna: {share:.2%} of the test part overlaps training", err=True)
        raise typer.Exit(1)


@app.command()
@user_errors("titans-dna")
def split(
    sequences: File,
    train: Annotated[Path, typer.Option(help="File to write, of the kind that was read.")],
    test: Annotated[Path, typer.Option(help="The other one.")],
    labels: Labels = None,
    column: Column = None,
    test_size: Annotated[float, typer.Option(help="Share of the test part.")] = 0.2,
    k: K = 30,
    skip_repeats: SkipRepeats = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Split in two, so that no sequence has a relative in the other part."""
    if sequences == STDIN:
        raise typer.BadParameter("must be a file: it is read twice", param_hint="SEQUENCES")
    from titans_dna.cli_output import class_counts
    from titans_dna.cli_split import check_parts, write_parts
    from titans_dna.homology import homology_split

    check_parts(sequences, (train, test))
    y = None
    if labels is None:
        read = read_all(sequences, column)
    else:
        read, y = read_labelled(sequences, labels, column)
    with about(sequences):
        rows = homology_split(read, y, test_size, k, seed, skip_repeats=skip_repeats)
    import numpy as np

    write_parts(sequences, (train, test), np.isin(np.arange(len(read)), rows[1]))
    if not quiet:
        facts = {}
        for path, part in zip((train, test), rows, strict=True):
            counts = {} if y is None else class_counts(y[part])
            facts[str(path)] = {"sequences": f"{len(part)} ({len(part) / len(read):.1%})", **counts}
        print_facts(facts, to_stderr=True)


@app.command()
@user_errors("titans-dna")
def info(model: ModelFile, as_json: AsJson = False) -> None:
    """Show what a model knows and how it came about."""
    from titans_dna.classifier import TitansDNAClassifier
    from titans_dna.cli_output import facts_of_model, in_words

    facts = facts_of_model(TitansDNAClassifier.load(model))
    typer.echo(json.dumps(facts, indent=2)) if as_json else print_facts(in_words(facts))


def _training(n_rows: int, max_steps: int) -> TrainingConfig:
    from titans_dna.settings import default_training

    every = max(1, max_steps // 12)
    return replace(default_training(n_rows), max_steps=max_steps, validate_every=every)


if __name__ == "__main__":
    app()
