"""Sequences: every kind of input gives the same tokens, and every mistake names its place."""

from __future__ import annotations

import gzip
import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from Bio import SeqIO
from Bio.Seq import MutableSeq, Seq
from Bio.SeqRecord import SeqRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from titans_dna.alphabet import PAD, decode, encode
from titans_dna.sequences import Sequences, is_dna_input, iter_sequences, read_sequences

TEXTS = ["ACGT", "nnA", "RYKMU"]
LETTERS = "ACGTURYSWKMBDHVNacgturyswkmbdhvn"
dna = st.lists(st.text(LETTERS, min_size=1, max_size=12), min_size=1, max_size=8)


def bare(sequences):
    return replace(sequences, names=None, descriptions=None, sources=None)


def texts_of(sequences):
    return [decode(tokens) for tokens in sequences]


def token_matrix(texts):
    tokens = [encode(text) for text in texts]
    matrix = np.full((len(texts), max(map(len, tokens)) + 1), PAD, np.uint8)
    for row, values in zip(matrix, tokens, strict=True):
        row[: len(values)] = values
    return matrix


def characters(texts, dtype):
    width = max(map(len, texts))
    return np.array([[*text] + [""] * (width - len(text)) for text in texts], dtype=dtype)


def fasta(texts):
    return io.BytesIO("".join(f">s{i}\n{text}\n" for i, text in enumerate(texts)).encode())


KINDS = {
    "list": list,
    "tuple": tuple,
    "iterator": iter,
    "dict": lambda texts: {f"s{i}": text for i, text in enumerate(texts)},
    "bytes": lambda texts: [text.encode() for text in texts],
    "bytearray and str": lambda texts: [bytearray(texts[0].encode()), *texts[1:]],
    "token arrays": lambda texts: [encode(text) for text in texts],
    "str array": np.array,
    "bytes array": lambda texts: np.array(texts, "S"),
    "object array": lambda texts: np.array(texts, object),
    "object column": lambda texts: np.array(texts, object)[:, None],
    "token matrix": token_matrix,
    "character matrix": lambda texts: characters(texts, "U1"),
    "wide character matrix": lambda texts: characters(texts, "U3"),
    "bytes matrix": lambda texts: np.asfortranarray(characters(texts, "S1")),
    "object matrix": lambda texts: characters(texts, object),
    "Seq": lambda texts: [Seq(text) for text in texts],
    "MutableSeq": lambda texts: [MutableSeq(text) for text in texts],
    "SeqRecord": lambda texts: [SeqRecord(Seq(text)) for text in texts],
    "SeqIO": lambda texts: SeqIO.parse(io.StringIO(fasta(texts).read().decode()), "fasta"),
    "pandas object": lambda texts: pd.Series(texts, dtype=object),
    "pandas str": lambda texts: pd.Series(texts, dtype="string"),
    "pandas category": lambda texts: pd.Series(texts, dtype="category"),
    "pandas of Seq": lambda texts: pd.Series([Seq(text) for text in texts]),
    "pandas frame": lambda texts: pd.DataFrame({"label": 0, "DNA": texts}),
    "polars": pl.Series,
    "polars categories": lambda texts: pl.Series(texts, dtype=pl.Categorical),
    "polars bytes": lambda texts: pl.Series([text.encode() for text in texts]),
    "polars frame": lambda texts: pl.DataFrame({"label": ["A"] * len(texts), "seq": texts}),
    "FASTA": fasta,
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(texts=dna)
def test_every_kind_gives_the_same_sequences(kind, texts):
    expected = Sequences.from_list([encode(text) for text in texts])
    assert is_dna_input(KINDS[kind](texts))
    assert bare(read_sequences(KINDS[kind](texts))) == expected
    batches = list(iter_sequences(KINDS[kind](texts), batch_bases=10))
    assert bare(Sequences.concatenate(batches)) == expected
    assert all(batch.tokens.size <= 10 or len(batch) == 1 for batch in batches)


@pytest.mark.parametrize("kind", [list, pd.Series, pl.Series, np.array])
def test_white_space_around_sequences_is_dropped(kind):
    assert texts_of(read_sequences(kind(["ACGT\n", " AC ", "G"]))) == ["ACGT", "AC", "G"]
    assert texts_of(read_sequences([b"ACGT\n", b"AC"])) == ["ACGT", "AC"]
    frame = pd.DataFrame({" Class": ["EI"], " Sequence ": ["  ACGT"]})
    assert texts_of(read_sequences(frame)) == ["ACGT"]


def test_sequences_pass_unchanged():
    sequences = read_sequences(TEXTS)
    assert read_sequences(sequences) is sequences
    assert is_dna_input(sequences)
    assert texts_of(sequences) == ["ACGT", "nnA", "RYKMT"]


@pytest.mark.parametrize(
    "X",
    [
        [[0.5, 1.0]],
        [1, 2],
        np.zeros((3, 2)),
        np.zeros((3, 2), int),
        np.zeros(3, np.uint8),
        np.array([[1, 2.5]], object),
        pd.DataFrame({"a": [1.0]}),
        pd.Series([1, 2]),
        pl.DataFrame({"a": [1]}),
        3.5,
        None,
    ],
)
def test_numbers_are_no_dna(X):
    assert not is_dna_input(X)


@settings(max_examples=40, deadline=None)
@given(texts=dna, data=st.data())
def test_take_is_what_a_list_does(texts, data):
    names = tuple(map(str, range(len(texts))))
    sequences = replace(read_sequences(texts), names=names)
    n = len(texts)
    places = data.draw(st.lists(st.integers(-n, n - 1), max_size=10))
    bounds = data.draw(st.slices(n))
    mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    for indices, chosen in [
        (places, places),
        (np.array(places, int), places),
        (bounds, range(n)[bounds]),
        (np.array(mask), np.flatnonzero(mask)),
    ]:
        taken = sequences.take(indices)
        assert [x.tobytes() for x in taken] == [sequences[i].tobytes() for i in chosen]
        assert taken.names == tuple(names[i] for i in chosen)
    halves = [sequences.take(slice(0, n // 2)), sequences.take(slice(n // 2, None))]
    assert Sequences.concatenate(halves) == sequences


def test_take_crosses_blocks_and_copies_long_sequences_whole():
    rng = np.random.default_rng(0)
    for low, high, n in [(1, 40, 60_000), (1000, 3000, 50)]:
        lengths = rng.integers(low, high, n)
        tokens = rng.integers(0, 4, lengths.sum(), dtype=np.uint8)
        sequences = Sequences(tokens, np.concatenate([[0], np.cumsum(lengths)]))
        places = rng.permutation(n)
        expected = np.concatenate([sequences[i] for i in places])
        taken = sequences.take(places)
        np.testing.assert_array_equal(taken.tokens, expected)
        np.testing.assert_array_equal(taken.lengths, lengths[places])


def test_sequences_are_a_checked_value():
    sequences = read_sequences({"a": "ACGT", "b": "GG"})
    assert repr(sequences) == "<Sequences: 2 sequences, 6 bases>"
    assert pickle.loads(pickle.dumps(sequences)) == sequences
    assert sequences[-1] is not sequences.tokens
    assert np.shares_memory(sequences[1], sequences.tokens)
    assert sequences != replace(sequences, names=None)
    assert sequences != "ACGTGG"
    assert len(Sequences.concatenate([])) == len(sequences.take([])) == 0
    assert Sequences.concatenate([sequences, replace(sequences, names=None)]).names is None
    with pytest.raises(IndexError, match="there is no sequence 2; there are 2"):
        sequences[2]
    with pytest.raises(IndexError):
        sequences.take([5])
    tokens, offsets = sequences.tokens, sequences.offsets
    with pytest.raises(TypeError, match="tokens must be 1-d uint8; got 1-d int64"):
        Sequences(tokens.astype(int), offsets)
    with pytest.raises(TypeError, match="offsets must be 1-d int64"):
        Sequences(tokens, offsets.astype(np.int32))
    with pytest.raises(ValueError, match="offsets must rise from 0 to the 6 tokens"):
        Sequences(tokens, offsets[:-1])
    with pytest.raises(ValueError, match="names has 1 entries for 2 sequences"):
        Sequences(tokens, offsets, ("a",))


def test_names_come_from_records_columns_and_the_index():
    records = [SeqRecord(Seq("AC"), id="a", description="a one"), SeqRecord(Seq("G"), id="b")]
    read = read_sequences(records)
    assert read.names == ("a", "b")
    assert read.descriptions == ("a one", "<unknown description>")
    assert read_sequences({"a": "AC", 2: Seq("G")}).names == ("a", "2")
    frame = pd.DataFrame({"seq": ["AC", "G"], "Name": ["x", None]}, index=[7, 9])
    assert read_sequences(frame).names == ("x", "")
    assert read_sequences(frame["seq"]).names == ("7", "9")
    assert read_sequences(frame.drop(columns="Name")).names == ("7", "9")
    assert read_sequences(frame.reset_index(drop=True)["seq"]).names is None
    assert read_sequences(pl.DataFrame({"seq": ["AC", "G"]})).names is None
    both = pl.DataFrame({"name": ["n", "m"], "id": [1, 2], "sequence": ["AC", "G"]})
    assert read_sequences(both).names == ("1", "2")


@pytest.mark.parametrize("library", [pd, pl])
def test_the_column_of_sequences_is_found_or_named(library):
    frame = library.DataFrame(
        {"note": ["AC", "E"], "label": ["AA", "CC"], "read": ["AC", "GT"], "n": [1, 2]}
    )
    assert texts_of(read_sequences(frame)) == ["AC", "GT"]
    assert texts_of(read_sequences(frame, column="label")) == ["AA", "CC"]
    assert is_dna_input(frame)
    with pytest.raises(ValueError, match=r"X has no column 'reed'\. Did you mean 'read'\? It has "):
        read_sequences(frame, column="reed")
    with pytest.raises(ValueError, match="`column` is for data frames and tables; X is neither"):
        read_sequences(TEXTS, column="seq")
    two = library.DataFrame({"a": ["AC"], "b": ["GT"]})
    with pytest.raises(ValueError, match=r"several columns that could be .* \['a', 'b'\]"):
        read_sequences(two)
    two = library.DataFrame({"seq": ["AC"], "DNA": ["GT"]})
    with pytest.raises(ValueError, match=r"X has several columns of sequences, \['seq', 'DNA'\]"):
        read_sequences(two)
    none = library.DataFrame({"a": ["AC", "Q"], "b": ["A", "C"], "c": [1, 2]})
    with pytest.raises(ValueError, match=r"none holds DNA only: 'a' \(holds 'Q'\), 'b' \(single"):
        read_sequences(none)
    with pytest.raises(ValueError, match=r"no column of sequences; it has \['c'\]\. Name it"):
        read_sequences(none[["c"]])
    with pytest.raises(TypeError, match=r"X must hold sequences; got dtype .*nt64"):
        read_sequences(none, column="c")


def test_a_name_that_two_columns_share_is_refused():
    frame = pd.DataFrame([["AC", "GT"]], columns=["seq", "seq"])
    with pytest.raises(ValueError, match=r"X has 2 columns 'seq'\. Rename or drop one"):
        read_sequences(frame, column="seq")


CASES = [
    (["AC", "ACE"], ValueError, r"X\[1\] holds 'E' at position 2, not a nucleotide code: is this"),
    ({"i": "AC", "d": "AE"}, ValueError, r"X\[1\] \('d'\) holds 'E' at position 1, not a"),
    ([b"AC", b"Q"], ValueError, r"X\[1\] holds 'Q' at position 0"),
    (["AC", "AXC"], ValueError, r"holds 'X' at position 1, .* Write N for an unknown base"),
    (["AC", "Aж"], ValueError, r"X\[1\] holds 'ж' at position 1.* Correct it, or write N"),
    (["A-C"], ValueError, r"holds '-' at position 1: a gap or a stop.* sequence.replace\('-', ''"),
    (["AC."], ValueError, r"holds '\.' at position 2: a gap or a stop"),
    (["AC*"], ValueError, r"holds '\*' at position 2: a gap or a stop"),
    (["AC ", "A\nC"], ValueError, r"X\[1\] holds white space \('\\n'\) at position 1\. Remove it"),
    (["AC", " \n"], ValueError, r"X has 1 empty sequence; first X\[1\]"),
    (["AC", None], ValueError, "X has 1 missing sequence, in row 1. Drop them"),
    ([None, float("nan"), pd.NA, "A", pd.NaT], ValueError, "4 missing .* in rows 0, 1, 2, ..."),
    (pd.Series(["AC", None]), ValueError, "X has 1 missing sequence, in row 1"),
    (pl.Series(["AC", None, None]), ValueError, "X has 2 missing sequences, in rows 1, 2"),
    (["AC", ""], ValueError, r"X has 1 empty sequence; first X\[1\]\. Drop what has no letters"),
    ([], ValueError, "X holds no sequences; needs at least one"),
    (iter([]), ValueError, "X holds no sequences; needs at least one"),
    (pl.Series([], dtype=pl.String), ValueError, "X holds no sequences; needs at least one"),
    (np.full((2, 3), PAD, np.uint8), ValueError, r"X has 2 empty sequences; first X\[0\]"),
    (np.array([[0], [65]], np.uint8), ValueError, r"X\[1\] holds 65 at position 0.*view\('S1'\)"),
    (np.array([[0, 31]], np.uint8), ValueError, r"X\[0\] holds 31 at position 1, no token"),
    (np.array([[0, 15, 1]], np.uint8), ValueError, r"X\[0\] holds 15 at position 1, the padding"),
    (np.zeros(4, np.uint8), ValueError, r"X is one sequence of 4 tokens.* Pass X\[None, :\]"),
    ([np.zeros(2)], TypeError, r"X\[0\] must be uint8 tokens of shape \(length,\); got float64"),
    (np.zeros((2, 3, 4)), TypeError, r"got float64 of shape \(2, 3, 4\).* one-hot bases by argmax"),
    (np.array([["A", "", "C"]]), ValueError, r"X\[0\] holds '\\x00' at position 1"),
    (np.array([["A", "CG"]]), ValueError, r"each cell must hold one letter; \[0, 1\] is 'CG'"),
    (np.array([["A", "E"]], "S1"), ValueError, r"X\[0\] holds 'E' at position 1"),
    ([["A", "C"]], TypeError, r"X\[0\] must be .* got list\. Join its letters by ''\.join"),
    ([("name", "ACGT")], TypeError, r"X\[0\] must be a str, .* got tuple\.$"),
    (pd.DataFrame({"seq": []}), ValueError, "X holds no sequences; needs at least one"),
    ({"seq": ["AC"]}, TypeError, r"X\[0\] \('seq'\) must be a str, .* got list\.$"),
    ([1, 2], TypeError, r"X\[0\] must be a str, bytes, or a Biopython Seq or SeqRecord; got int"),
    (["AC", Path("a.fa")], TypeError, r"X\[1\] is a path, 'a\.fa', among others"),
    ([Seq(None, length=3)], ValueError, r"X\[0\] is a Seq without letters \(.*undefined"),
    (pd.Series([1, 2]), TypeError, "X must hold sequences; got dtype int64. Pass the column"),
    (pl.LazyFrame({"a": ["AC"]}), TypeError, r"X is a LazyFrame\. Pass X\.collect\(\)"),
    (b"ACGT", TypeError, r"X is a single bytes; wrap it in a list: \[X\]"),
    (Seq("ACGT"), TypeError, r"X is a single Seq; wrap it in a list: \[X\]"),
    ("ACGT", ValueError, r"X is a str that names no file and looks like .* in a list: \[X\]"),
    ("ACGT" * 1000, ValueError, "looks like a sequence; wrap it in a list"),
    (">a\nACGT\n", ValueError, r"X is a str, which must be a path; got text.*io\.StringIO\(X\)"),
    ("nowhere/x.fa", ValueError, "no such file"),
    ("nowhere/x.csv", ValueError, r"'nowhere/x\.csv': no such file"),
    (["a.fa", "b.fa"], ValueError, r"X\[0\] looks like a path, 'a\.fa', but not every entry"),
    (3.5, TypeError, "X must be a list, array or Series of sequences, .* got float"),
]


@pytest.mark.parametrize(("X", "error", "message"), CASES, ids=[case[2][:40] for case in CASES])
def test_a_mistake_is_named_with_its_place(X, error, message):
    with pytest.raises(error, match=message):
        read_sequences(X)


def test_an_iterator_counts_rows_over_its_batches():
    with pytest.raises(ValueError, match=r"reads\[4\] holds 'E' at position 1"):
        list(iter_sequences(iter(["ACG", "AC", "A", "AA", "AE"]), batch_bases=3, name="reads"))
    with pytest.raises(ValueError, match="X has 1 missing sequence, in row 2"):
        list(iter_sequences(iter(["ACG", "AC", None]), batch_bases=3))
    with pytest.raises(ValueError, match="batch_bases must be an int >= 1; got 0"):
        next(iter_sequences(TEXTS, batch_bases=0))


def test_an_iterator_is_read_no_further_than_a_batch():
    drawn = []

    def endless():
        while True:
            drawn.append("ACGT")
            yield drawn[-1]

    batches = iter_sequences(endless(), batch_bases=10)
    assert [len(next(batches)) for _ in range(3)] == [2, 2, 2]
    assert len(drawn) == 7


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pos.fa").write_text(">p1 one\nAC\nGT\n>p2\nnn\n")
    (tmp_path / "neg.fa.gz").write_bytes(gzip.compress(b">n1 none\nGG\n"))
    return tmp_path


def test_files_are_read_with_names_headers_and_sources(folder):
    pos, neg = folder / "pos.fa", folder / "neg.fa.gz"
    one = read_sequences(pos)
    assert texts_of(one) == ["ACGT", "nn"]
    assert (one.names, one.descriptions) == (("p1", "p2"), ("p1 one", "p2"))
    assert one.sources == (str(pos),) * 2
    for X in ([pos, neg], [str(pos), str(neg)]):
        assert is_dna_input(X)
        both = read_sequences(X)
        assert texts_of(both) == ["ACGT", "nn", "GG"]
        assert both.sources == (str(pos), str(pos), str(neg))
    assert sorted(read_sequences(str(folder)).names) == ["n1", "p1", "p2"]
    with pos.open("rb") as file:
        assert bare(read_sequences(file)) == bare(one)
    with pytest.raises(ValueError, match="`column` is for tables; X is FASTA"):
        read_sequences(pos, column="seq")


def test_a_pyfaidx_object_is_read(folder):
    pyfaidx = pytest.importorskip("pyfaidx")
    with pyfaidx.Fasta(str(folder / "pos.fa")) as genome:
        assert is_dna_input(genome)
        assert texts_of(read_sequences(genome)) == ["ACGT", "nn"]


def test_a_record_without_letters_is_named(tmp_path):
    (tmp_path / "x.fa").write_text(">a\nAC\n>b\n>c\nGT\n")
    with pytest.raises(ValueError, match=r"x\.fa: record 'b' at line 3 has no sequence\. Drop it"):
        read_sequences(tmp_path / "x.fa")


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12), batch=st.integers(1, 40))
def test_fasta_comes_in_batches_that_hold_their_bound(lengths, batch):
    texts = ["ACGTn"[i % 5] * length for i, length in enumerate(lengths)]
    batches = list(iter_sequences(fasta(texts), batch_bases=batch))
    assert [text for part in batches for text in texts_of(part)] == texts
    assert [name for part in batches for name in part.names] == [f"s{i}" for i in range(len(texts))]
    assert all(part.tokens.size <= batch or len(part) == 1 for part in batches)


def test_pieces_of_long_records_are_put_together(monkeypatch):
    monkeypatch.setattr("titans_dna.sequence_files._CHUNK", 7)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), length)) for length in (5, 3_000_000, 8, 6)]
    batches = list(iter_sequences(fasta(texts), batch_bases=100))
    assert [len(batch) for batch in batches] == [1, 1, 2]
    assert [text for batch in batches for text in texts_of(batch)] == texts


def test_an_endless_fasta_stream_comes_in_batches():
    class Endless:
        def read(self, size):  # noqa: ARG002  # gives less than is asked for
            return b">a\nACGTACGTAC\n" * 5000

    batches = iter_sequences(Endless(), batch_bases=1000)
    assert all(next(batches).tokens.size == 1000 for _ in range(20))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".csv.gz"])
def test_tables_are_read_by_their_suffix(tmp_path, suffix):
    path = tmp_path / f"train{suffix}"
    frame = pd.DataFrame({"id": ["007", "x"], "sequence": ["ACGT", "nn"], "other": ["GG", "CC"]})
    if suffix == ".parquet":
        pl.DataFrame(frame.to_dict("list")).write_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if suffix == ".tsv" else ",", index=False)
    read = read_sequences(str(path))
    assert texts_of(read) == ["ACGT", "nn"]
    assert read.names == ("007", "x")
    assert read.sources == (str(path),) * 2
    assert texts_of(read_sequences(path, column="other")) == ["GG", "CC"]
    assert [len(batch) for batch in iter_sequences(path, batch_bases=4)] == [1, 1]
    assert texts_of(read_sequences([path, path])) == ["ACGT", "nn"] * 2


def test_a_table_that_is_none_is_refused(tmp_path, folder):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bare.csv").write_text("ACGTACGTACGT,1\nACGTACGTACGA,0\n")
    with pytest.raises(ValueError, match=r"bare\.csv has no header line: its first line holds 'AC"):
        read_sequences(tmp_path / "bare.csv")
    (tmp_path / "bad.csv").write_text("id,seq\na,ACE\n")
    with pytest.raises(ValueError, match=r"empty\.csv' is no table that can be read"):
        read_sequences(tmp_path / "empty.csv")
    with pytest.raises(ValueError, match=r"bad\.csv\[0\] \('a'\) holds 'E' at position 2"):
        read_sequences(tmp_path / "bad.csv")
    with pytest.raises(ValueError, match="X mixes tables and FASTA files"):
        read_sequences([folder / "pos.fa", tmp_path / "bad.csv"])


def test_a_frame_with_a_column_called_read_is_no_open_file():
    frame = pd.DataFrame({"read": ["AC"], "seq": ["GT"]})
    assert texts_of(read_sequences(frame)) == ["GT"]
    assert texts_of(read_sequences(pd.Series(["GT"], index=["read"]))) == ["GT"]
