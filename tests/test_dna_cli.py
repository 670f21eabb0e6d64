"""The command line of the DNA head: what Python answers, or one line that says why not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import titans_core
from titans_dna import TitansDNAClassifier, iter_fasta, leak_report, read_sequences
from titans_dna.cli import app

ROOT = Path(__file__).parent.parent
N, LENGTH = 40, 50
QUICK = ["--n-networks", "1", "--max-steps", "4", "--reverse-complement", "none"]


def run(*arguments, code=0, stdin=None):
    """Run the command in this process; return what it wrote to (stdout, stderr)."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout, result.stderr


def error_of(*arguments, stdin=None):
    """The one line that a user's mistake is answered with."""
    stdout, stderr = run(*arguments, code=1, stdin=stdin)
    assert stdout == ""
    assert stderr.startswith("titans-dna: error: ")
    assert stderr.count("\n") == 1
    return stderr


def draw(rng, gc, length=LENGTH):
    return "".join(rng.choices("ACGT", [1 - gc, gc, gc, 1 - gc], k=length))


def fasta(records):
    return "".join(f">{header}\n{letters[:30]}\n{letters[30:]}\n" for header, letters in records)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with labelled sequences in every shape, a genome with regions, and a model."""
    folder = tmp_path_factory.mktemp("a folder")
    rng = random.Random(0)
    rows = [(f"s{i}", draw(rng, 0.85 if i % 2 else 0.15), ["poor", "rich"][i % 2])
            for i in range(N)]  # fmt: skip
    (folder / "all.fa").write_text(fasta((f"{i} class={c}", s) for i, s, c in rows))
    for label in ("rich", "poor"):
        (folder / "by_class" / label).mkdir(parents=True)
        text = fasta((i, s) for i, s, c in rows if c == label)
        (folder / f"{label}.fa").write_text(text)
        (folder / "by_class" / label / "part.fasta").write_text(text)
    table = pl.DataFrame(rows, schema=["id", "sequence", "label"], orient="row")
    table = table.with_columns(code=pl.Series([f"{i:03}" for i in range(N)]))
    table.write_csv(folder / "all.csv")
    table.write_csv(folder / "all.tsv", separator="\t")
    table.write_parquet(folder / "all.parquet")
    table.select("id", "label").write_csv(folder / "labels.csv")
    for (label,), part in table.group_by("label"):
        part.write_csv(folder / f"{label}.csv")
    (folder / "genome.fa").write_text(fasta([("chr1", draw(rng, 0.5, 400))]))
    (folder / "regions.bed").write_text("chr1\t0\t50\tone\t0\t+\nchr1\t70\t120\ttwo\t0\t-\n")
    (folder / "wrong.bed").write_text("chr1\t0\t50\nchr2\t0\t50\nchr1\t390\t410\n")
    (folder / "odd.fa").write_text(">a\nACGTN\nacgtn\n>a\nACGTNACGTN\n>b\n>c\nNNRR\n")
    (folder / "bad.fa").write_text(">a\nACGT\n>b\nACEGT\n")
    fit = ("fit", folder / "all.fa", "--labels", r"re:class=(\w+)", "-o", folder / "model", *QUICK)
    stdout, stderr = run(*fit)
    assert stdout == ""
    (folder / "fit.log").write_text(stderr)
    return folder


@pytest.fixture(scope="module")
def model(files):
    return TitansDNAClassifier.load(files / "model")


@pytest.fixture
def seen(monkeypatch):
    """What `fit` hands to the classifier, which does not learn."""
    found = []
    monkeypatch.setattr(TitansDNAClassifier, "fit", lambda *arguments: found.append(arguments))
    monkeypatch.setattr(TitansDNAClassifier, "save", lambda *_: None)
    return found


def test_a_prediction_on_stdout_is_what_python_predicts(files, model):
    stdout, stderr = run("predict", files / "model", files / "all.fa")
    header, *rows = csv.reader(io.StringIO(stdout))
    expected = model.predict_frame(files / "all.fa")
    assert stderr == ""
    assert header == ["id", "prediction", "p_poor", "p_rich"]
    assert [row[:2] for row in rows] == expected[["id", "prediction"]].to_numpy().tolist()
    probabilities = np.array([row[2:] for row in rows], dtype=float)
    np.testing.assert_array_equal(probabilities, expected[["p_poor", "p_rich"]].to_numpy())


def test_json_lines_hold_the_same_prediction(files, model):
    stdout, _ = run("predict", files / "model", files / "all.csv", "--json")
    answers = [json.loads(line) for line in stdout.splitlines()]
    assert [each["prediction"] for each in answers] == model.predict(files / "all.csv").tolist()
    assert answers[0]["id"] == "s0"
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)


def test_a_prediction_can_go_to_a_file_and_come_from_stdin(files, tmp_path):
    expected, _ = run("predict", files / "model", files / "all.fa")
    text = (files / "all.fa").read_text()
    assert run("predict", files / "model", "-", stdin=text)[0] == expected
    assert run("predict", files / "model", "-", "-o", tmp_path / "out.csv", stdin=text) == ("", "")
    assert (tmp_path / "out.csv").read_text() == expected


def test_a_prediction_is_a_stream(files, monkeypatch, tmp_path):
    """What stands before a fault is out before the fault is found, but not in a file."""
    monkeypatch.setattr(TitansDNAClassifier.iter_predict, "__kwdefaults__", {"batch_bases": 100})
    text = (files / "all.fa").read_text() + ">last\nACEGT\n"
    stdout, stderr = run("predict", files / "model", "-", stdin=text, code=1)
    assert len(stdout.splitlines()) > N / 2
    assert "record 'last' at line 122 holds 'E'" in stderr
    run("predict", files / "model", "-", "-o", tmp_path / "out.csv", stdin=text, code=1)
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_what_its_name_says(files, tmp_path):
    expected, _ = run("predict", files / "model", files / "all.fa")
    ask = ("predict", files / "model", files / "all.fa", "-o")
    run(*ask, tmp_path / "out.csv.gz")
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).decode() == expected
    run(*ask, tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text() == expected.replace(",", "\t")
    leaks = ("leaks", files / "all.fa", files / "rich.fa", "-o")
    run(*leaks, tmp_path / "pairs.tsv.gz")
    pairs = gzip.decompress((tmp_path / "pairs.tsv.gz").read_bytes()).decode()
    assert "\t" in pairs.splitlines()[0]
    for name in ("out.parquet", "out.csv.bz2", "out.json", "out.jsonl.gz"):
        assert "would hold CSV" in run(*ask, tmp_path / name, code=2)[1]
    assert "would hold JSON" in run(*ask, tmp_path / "out.csv", "--json", code=2)[1]
    run(*leaks, tmp_path / "pairs.parquet", code=2)


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """A genome of rich and poor stretches, and their regions in a BED file."""
    folder, rng = tmp_path_factory.mktemp("regions"), random.Random(1)
    kinds = [("rich", 0.85), ("poor", 0.15)] * 20
    letters = "".join(draw(rng, gc, 50) for _, gc in kinds)
    (folder / "genome.fa").write_text(fasta([("chr1", letters)]))
    lines = [f"chr1\t{50 * i}\t{50 * i + 50}\t{kind}.{i}\n" for i, (kind, _) in enumerate(kinds)]
    (folder / "numbered.bed").write_text("".join(lines))
    (folder / "kinds.bed").write_text("".join(re.sub(r"\.\d+", "", line) for line in lines))
    (folder / "bare.bed").write_text("chr1\t0\t50\nchr1\t50\t100\n")
    return folder


def test_regions_of_a_genome_are_learned_and_scored(regions, tmp_path):
    genome = regions / "genome.fa"
    by_column = ("--bed", regions / "kinds.bed")
    run("fit", genome, *by_column, "-o", tmp_path / "model", *QUICK)
    by_name = ("--bed", regions / "numbered.bed", "--labels", r"re:^(\w+)\.")
    run("fit", genome, *by_name, "-o", tmp_path / "other", *QUICK)
    letters = next(iter_fasta(genome)).sequence
    pieces = [letters[at : at + 50] for at in range(0, len(letters), 50)]
    first, second = (TitansDNAClassifier.load(tmp_path / name) for name in ("model", "other"))
    assert first.classes_.tolist() == ["poor", "rich"]
    np.testing.assert_array_equal(first.predict_proba(pieces), second.predict_proba(pieces))
    stdout, _ = run("report", tmp_path / "model", genome, *by_column, "--json")
    kinds = ["rich", "poor"] * 20
    assert json.loads(stdout)["scores"]["accuracy"]["value"] == first.score(pieces, kinds)
    bare = error_of("report", tmp_path / "model", genome, "--bed", regions / "bare.bed")
    assert "region 'chr1:0-50' at line 1 has no fourth column that is its label" in bare
    column = error_of("report", tmp_path / "model", genome, *by_column, "--column", "sequence")
    assert "`column` is for tables; --bed takes regions of FASTA" in column


def test_regions_are_looked_at_before_any_is_predicted(files, regions, tmp_path):
    bed = tmp_path / "odd.bed"
    bed.write_text((regions / "bare.bed").read_text() + "chr1\t0\t40\n")
    message = error_of("predict", files / "model", regions / "genome.fa", "--bed", bed)
    assert "region 'chr1:0-40' at line 3 has 40 bases; the model reads DNA of 50" in message
    missing = error_of("predict", files / "model", tmp_path / "no.fa", "--bed", bed)
    assert "error: there is no file" in missing


@pytest.mark.filterwarnings("default")
def test_windows_along_a_genome_are_predicted_with_their_places(files, model, tmp_path):
    genome, letters = tmp_path / "genome.fa", draw(random.Random(3), 0.5, 130)
    genome.write_text(fasta([("chr1", letters), ("short", letters[:49]), ("chr2", letters[:50])]))
    scan = ("predict", files / "model", genome, "--window", "50", "--step", "30")
    stdout, stderr = run(*scan)
    rows = list(csv.DictReader(io.StringIO(stdout)))
    places = [("chr1", 0), ("chr1", 30), ("chr1", 60), ("chr1", 80), ("chr2", 0)]
    assert [(row["chrom"], int(row["start"])) for row in rows] == places
    assert all(int(row["end"]) - int(row["start"]) == 50 for row in rows)
    expected = model.predict([letters[start : start + 50] for _, start in places]).tolist()
    assert [row["prediction"] for row in rows] == expected
    assert stderr.startswith("titans-dna: warning: ")
    assert "records shorter than the 50 bases that the model reads are left out: 1" in stderr


def test_windows_that_make_no_sense_are_refused(files):
    scan = ("predict", files / "model", files / "genome.fa")
    assert "reads DNA of 50 bases" in error_of(*scan, "--window", "60")
    both = error_of(*scan, "--window", "50", "--bed", files / "regions.bed")
    assert "give one of them" in both
    assert "give --window, too" in error_of(*scan, "--step", "50")
    _, stderr = run("predict", files / "model", "-", "--window", "50", code=2)
    assert "needs a genome in one file" in " ".join(stderr.split())


def test_regions_of_a_genome_are_predicted_with_their_places(files, model):
    bed = ["--bed", files / "regions.bed"]
    stdout, _ = run("predict", files / "model", files / "genome.fa", *bed)
    rows = list(csv.reader(io.StringIO(stdout)))
    assert rows[0][:6] == ["id", "chrom", "start", "end", "strand", "prediction"]
    assert [row[:5] for row in rows[1:]] == [
        ["one", "chr1", "0", "50", "+"],
        ["two", "chr1", "70", "120", "-"],
    ]
    (genome,) = (record.sequence for record in iter_fasta(files / "genome.fa"))
    other = genome[70:120][::-1].translate(str.maketrans("ACGT", "TGCA"))
    assert [row[5] for row in rows[1:]] == model.predict([genome[:50], other]).tolist()
    stdout, _ = run("predict", files / "model", files / "genome.fa", *bed, "--json")
    assert json.loads(stdout.splitlines()[1])["strand"] == "-"


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        (["all.fa", "--labels", r"re:class=(\w+)"], None),
        (["all.fa", "--labels", "labels.csv"], None),
        (["all.csv"], None),
        (["all.tsv", "--labels", "label", "--column", "sequence"], None),
        (["all.parquet"], None),
        (["poor.csv", "rich.csv"], ["poor", "rich"]),
        (["poor.csv", "rich.csv", "--labels", "label"], ["poor", "rich"]),
        (["poor.fa", "rich.fa", "--labels", "file"], ["poor", "rich"]),
        (["by_class", "--labels", "folder"], ["poor", "rich"]),
    ],
)
def test_labels_are_read_from_wherever_they_are(files, monkeypatch, seen, arguments, labels):
    monkeypatch.chdir(files)
    run("fit", *arguments, "-o", "other", "-q")
    _, sequences, y = seen[0]
    expected = ["poor", "rich"] * (N // 2) if labels is None else np.repeat(labels, N // 2).tolist()
    assert y.tolist() == expected
    assert len(sequences) == N


def test_options_reach_the_estimator(files, seen):
    run(
        *("fit", files / "all.csv", "-o", files / "x", "-q", "--head", "pooled", "--seed", "7"),
        *("--reverse-complement", "none", "--class-weight", "balanced", "--soft-mask", "mask"),
        *("--n-networks", "2", "--max-steps", "30"),
    )
    parameters = seen[0][0].get_params()
    training = parameters.pop("training")
    defaults = TitansDNAClassifier().get_params()
    changed = {name for name, value in parameters.items() if value != defaults[name]}
    assert (training.max_steps, training.validate_every) == (30, 2)
    assert {name: parameters[name] for name in changed} == {
        "head": "pooled",
        "reverse_complement": None,
        "class_weight": "balanced",
        "soft_mask": "mask",
        "n_networks": 2,
        "random_state": 7,
        "progress": False,
    }


def test_a_fit_tells_on_stderr_what_it_learned(files):
    stderr = (files / "fit.log").read_text()
    for fact in ("network 1", "poor: 20", f"DNA of {LENGTH} bases", "accuracy held out"):
        assert fact in stderr


def test_info_shows_what_a_model_holds(files, model):
    facts = json.loads(run("info", files / "model", "--json")[0])
    assert facts["classes"] == ["poor", "rich"]
    assert (facts["networks"], facts["training_steps"]) == (1, [4])
    assert facts["experts"] == dict(zip(model.model_.experts, model.model_.blend.weights.tolist(),
                                        strict=True))  # fmt: skip
    assert facts["parameters"]["training"]["max_steps"] == 4
    stdout, _ = run("info", files / "model")
    assert f"DNA of {LENGTH} bases" in stdout


def test_a_report_is_that_of_python(files, model):
    labels = ["--labels", r"re:class=(\w+)"]
    answer = json.loads(run("report", files / "model", files / "all.fa", *labels, "--json")[0])
    sequences = read_sequences(files / "all.fa")
    expected = model.score_report(sequences, ["poor", "rich"] * (N // 2))
    assert answer == expected.to_dict()
    assert answer["baseline"]["accuracy"]["value"] is not None
    stdout, stderr = run("report", files / "model", files / "all.csv")
    assert (stdout, stderr) == (f"{expected}\n", "")


def test_check_counts_what_is_in_a_file(files):
    facts = json.loads(run("check", files / "odd.fa", "--json", code=1)[0])
    assert (facts["files"], facts["records"], facts["bases"]) == (1, 4, 24)
    assert facts["length"] == {"min": 0, "median": 7, "max": 10}
    assert facts["n_share"] == pytest.approx(6 / 24)
    assert facts["other_codes_share"] == pytest.approx(2 / 24)
    assert facts["soft_masked_share"] == pytest.approx(5 / 24)
    assert facts["gc_share"] == 0.5
    assert (facts["duplicate_names"], facts["duplicate_sequences"]) == (1, 1)
    assert "record ('c') has no base that is known" in facts["warnings"][0]
    assert "('a') has the name of an earlier one" in facts["warnings"][1]
    assert "('a') has the bases of an earlier one" in facts["warnings"][2]
    assert facts["problems"] == ["1 record ('b') has no letters: drop what has no class"]


@pytest.mark.parametrize("name", ["all.fa", "all.csv", "all.parquet", "by_class", "-"])
def test_check_passes_what_is_sound(files, name):
    source = name if name == "-" else files / name
    facts = json.loads(run("check", source, "--json", stdin=(files / "all.fa").read_text())[0])
    assert facts["records"] == N
    assert facts["files"] == (2 if name == "by_class" else 1)
    assert facts["length"]["median"] == LENGTH
    assert facts["problems"] == facts["warnings"] == []


def test_check_ends_with_1_where_a_file_is_bad(files):
    stdout, stderr = run("check", files / "bad.fa", code=1)
    assert "record 'b' at line 4 holds 'E'" in " ".join(stdout.split())
    assert stderr == ""
    assert "no file or folder 'nothing.fa'" in error_of("check", "nothing.fa")


def test_check_reads_regions_alone_and_in_their_genome(files):
    alone = json.loads(run("check", files / "regions.bed", "--json")[0])
    assert (alone["regions"], alone["bases"], alone["strands"]) == (2, 100, {"+": 1, "-": 1})
    assert alone["labels"] == {"one": 1, "two": 1}
    assert json.loads(run("check", files / "wrong.bed", "--json")[0])["problems"] == []
    genome = ("check", files / "genome.fa", "--json", "--bed")
    assert json.loads(run(*genome, files / "regions.bed")[0]) == alone
    assert alone["warnings"] == []
    first, second = json.loads(run(*genome, files / "wrong.bed", code=1)[0])["problems"]
    assert "at line 2 is on no record" in first
    assert "at line 3 is not within the 400 letters" in second


@pytest.fixture
def parts(files, tmp_path):
    """A training part, and a test part of which half is in it."""
    lines = (files / "all.csv").read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(lines[:31]))
    (tmp_path / "test.csv").write_text("".join([lines[0], *lines[21:]]))
    return tmp_path / "train.csv", tmp_path / "test.csv"


def test_leaks_are_those_of_python(parts):
    train, test = parts
    expected = leak_report(train, test)
    assert json.loads(run("leaks", *parts, "--json")[0]) == expected.to_dict()
    stdout, stderr = run("leaks", *parts, "-k", 20, "--labels", "label")
    labels = [pl.read_csv(part)["label"].to_list() for part in parts]
    expected = leak_report(train, test, 20, y_train=labels[0], y_test=labels[1])
    assert (stdout, stderr) == (f"{expected}\n", "")


def test_leaks_over_a_share_end_with_1(parts, tmp_path):
    stdout, stderr = run("leaks", *parts, "--fail-over", 0.4, "-o", tmp_path / "pairs.csv", code=1)
    assert "10 (50.0%)" in stdout
    assert stderr == "titans-dna: 50.00% of the test part overlaps training\n"
    pairs = pl.read_csv(tmp_path / "pairs.csv")
    assert pairs["test_name"].to_list() == pairs["train_name"].to_list()
    assert pairs.height == 10
    run("leaks", *parts, "--fail-over", 0.5)


def split(source, folder, suffix, *more):
    """Split into two files; return their paths."""
    train, test = folder / f"train{suffix}", folder / f"test{suffix}"
    stdout, _ = run("split", source, "--train", train, "--test", test, *more)
    assert stdout == ""
    return train, test


def test_fasta_is_split_as_it_is_written(files, tmp_path):
    text = (files / "all.fa").read_text()
    copies = text + text.replace(">s", ">copy").lower()
    (tmp_path / "in.fa").write_text(copies)
    labels = ["--labels", r"re:class=(\w+)"]
    train, test = split(tmp_path / "in.fa", tmp_path, ".fa.gz", "--test-size", 0.25, *labels)
    texts = [gzip.decompress(part.read_bytes()).decode() for part in (train, test)]
    blocks = [set(t.removeprefix(">").rstrip("\n").split("\n>")) for t in texts]
    assert blocks[0] | blocks[1] == set(copies.removeprefix(">").rstrip("\n").split("\n>"))
    assert (len(blocks[0]), len(blocks[1])) == (60, 20)
    assert json.loads(run("leaks", train, test, "--json")[0])["n_overlapping"] == 0


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_tables_keep_their_columns(files, tmp_path, suffix):
    parts = split(files / f"all{suffix}", tmp_path, suffix, "--labels", "label", "--seed", 3)
    if suffix == ".parquet":
        rows = pl.concat([pl.read_parquet(part) for part in parts])
        assert rows.sort("code").equals(pl.read_parquet(files / "all.parquet"))
    else:
        header, *lines = (files / f"all{suffix}").read_text().splitlines()
        texts = [part.read_text().splitlines() for part in parts]
        assert texts[0][0] == texts[1][0] == header
        assert sorted(texts[0][1:] + texts[1][1:]) == sorted(lines)


def test_a_folder_becomes_two_folders(files, tmp_path):
    parts = split(files / "by_class", tmp_path, "", "--labels", "folder")
    names = []
    for part in parts:
        assert sorted(path.name for path in part.iterdir()) == ["poor", "rich"]
        names += [record.name for record in iter_fasta(part)]
    assert sorted(names) == sorted(f"s{i}" for i in range(N))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test", "train"]


@pytest.mark.filterwarnings("default")
def test_a_split_that_cannot_be_even_warns_in_one_line(tmp_path):
    letters = draw(random.Random(1), 0.5)
    (tmp_path / "in.fa").write_text(fasta([("a", letters), ("b", letters), ("c", letters[::-1])]))
    _, stderr = run("split", tmp_path / "in.fa", "--train", tmp_path / "1.fa",
                    "--test", tmp_path / "2.fa", "--test-size", 0.9, "-q")  # fmt: skip
    assert stderr.startswith("titans-dna: warning: the test part holds 1 of 3 rows")
    assert stderr.count("\n") == 1


def test_an_interrupted_write_leaves_nothing(files, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    monkeypatch.setattr(Path, "rename", interrupt)
    for arguments in (
        ("predict", files / "model", files / "all.fa", "-o", tmp_path / "x"),
        ("split", files / "all.fa", "--train", tmp_path / "a.fa", "--test", tmp_path / "b.fa"),
        ("split", files / "by_class", "--train", tmp_path / "a", "--test", tmp_path / "b"),
    ):
        assert CliRunner().invoke(app, [*map(str, arguments)]).exit_code != 0
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("fit all.fa -o x", "all.fa: where are the labels? Give --labels: a column"),
        ("fit all.fa -o x --labels nothing.csv", "'nothing.csv': no such file"),
        ("fit all.fa -o x --labels re:clas=(.)", "finds no label in 40 of 40 headers"),
        ("fit all.csv -o x --labels lable", "all.csv: X has no column 'lable'. Did you mean"),
        ("fit all.csv -o x --column seq", "all.csv has no column 'seq'"),
        ("fit rich.fa -o x --labels file", "rich.fa: y holds only one class, 'rich'"),
        ("fit nothing.fa -o x --labels file", "'nothing.fa': no such file"),
        ("fit bad.fa -o x --labels file", "bad.fa: record 'b' at line 4 holds 'E'"),
        ("fit all.csv -o no/x", "cannot write to folder 'no'"),
        ("fit all.csv -o by_class", "'by_class' is no regular file"),
        ("fit all.csv -o all.csv", "'all.csv' would overwrite the sequences 'all.csv'"),
        ("fit all.fa -o labels.csv --labels labels.csv", "would overwrite the labels"),
        ("predict nothing all.fa", "there is no file 'nothing'"),
        ("predict all.fa all.fa", "is not a titans-stream file"),
        ("predict model -", "standard input: is empty"),
        ("predict model genome.fa", "genome.fa: X[0] ('chr1') has 400 bases; this classifier"),
        ("predict model all.fa -o model", "'model' would overwrite the model 'model'"),
        ("predict model all.fa -o all.fa", "would overwrite the sequences 'all.fa'"),
        ("predict model genome.fa --bed wrong.bed", "wrong.bed: region 'chr2:0-50' at line 2"),
        ("predict model all.fa --column sequence", "`column` is for tables"),
        ("report model all.fa", "where are the labels?"),
        ("report model all.csv --labels code", "which is none of the classes"),
        ("leaks all.fa nothing.fa", "'nothing.fa': no such file"),
        ("leaks all.fa rich.fa -o rich.fa", "'rich.fa' would overwrite the test part"),
        ("split all.fa --train a.fa --test ./a.fa", "would overwrite the file of --train"),
        ("split all.fa --train all.fa --test b.fa", "would overwrite the sequences 'all.fa'"),
        ("split all.fa --train a.csv --test b.fa", "end its name in .fa"),
        ("split all.csv --train a.csv --test b.tsv", "end its name in .csv"),
        ("split by_class --train rich.fa --test b", "'rich.fa' exists"),
        ("split nothing.fa --train a.fa --test b.fa", "no file or folder 'nothing.fa'"),
        ("split all.fa --train a.fa --test b.fa --test-size 1", "must be a share between 0 and 1"),
        ("split genome.fa --train a.fa --test b.fa", "hang together"),
        ("info nothing", "there is no file 'nothing'"),
    ],
)
def test_mistakes_are_answered_with_one_line(files, monkeypatch, command, message):
    monkeypatch.chdir(files)
    before = {file: file.read_bytes() for file in files.rglob("*") if file.is_file()}
    assert message in error_of(*command.split())
    assert {file: file.read_bytes() for file in files.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    "command",
    [
        "fit all.csv",
        "fit all.csv -o x --head round",
        "fit all.csv - -o x",
        "fit all.csv -o x --n-networks 0",
        "predict model - --bed regions.bed",
        "leaks all.fa all.fa -k 32",
        "leaks all.fa all.fa --fail-over 2",
        "split - --train a.fa --test b.fa",
    ],
)
def test_usage_errors_end_with_2(files, monkeypatch, command):
    monkeypatch.chdir(files)
    assert run(*command.split(), code=2)[0] == ""


def in_a_process(*arguments, stdin=None):
    command = [sys.executable, "-m", "titans_dna.cli", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=False
    )


def test_a_real_process_reads_stdin_and_keeps_the_streams_apart(files):
    text = (files / "all.fa").read_text()
    done = in_a_process("predict", files / "model", "-", stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run("predict", files / "model", files / "all.fa")[0]
    done = in_a_process("check", "nothing.fa")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("titans-dna: error: ")
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_package():
    assert run("--version")[0] == f"titans-dna {titans_core.__version__}\n"


@pytest.mark.parametrize("option", [["--help"], ["fit", "--help"], ["--version"]])
def test_help_and_version_import_nothing_heavy(option):
    code = (
        f"import sys; from titans_dna.cli import app; app({option!r}, standalone_mode=False);"
        "print(*{'torch', 'polars', 'pandas', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""


def test_checking_and_splitting_need_no_torch(files, tmp_path):
    source, outputs = files / "all.fa", ["--train", tmp_path / "a.fa", "--test", tmp_path / "b.fa"]
    commands = (["check", source], ["split", source, *outputs], ["leaks", source, source])
    code = "import sys; from titans_dna.cli import app\n"
    for command in commands:
        code += f"app({[*map(str, command)]!r}, standalone_mode=False)\n"
    code += "assert not {'torch', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
