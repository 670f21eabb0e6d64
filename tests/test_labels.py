"""Labels: wherever they are written, each sequence gets its own, of the type it had."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from titans_dna.labels import check_labels, read_labels
from titans_dna.sequences import Sequences, read_sequences

NAN = float("nan")
NAMED = read_sequences({"a": "AC", "b": "GT", "c": "GG"})
PLAIN = read_sequences(["AC", "GT", "GG"])


def described(*headers):
    return Sequences(PLAIN.tokens, PLAIN.offsets, descriptions=headers)


def sourced(*sources):
    return Sequences(PLAIN.tokens, PLAIN.offsets, sources=sources)


@settings(max_examples=40, deadline=None)
@given(
    labels=st.one_of(
        st.lists(st.text("abyz é1", max_size=3), min_size=1, max_size=6),
        st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6),
        st.lists(st.booleans(), min_size=1, max_size=6),
    )
)
def test_every_kind_keeps_its_labels_and_their_type(labels):
    n = len(labels)
    kinds = [
        labels,
        tuple(labels),
        np.array(labels),
        np.array(labels, dtype=object),
        pd.Series(labels, index=range(n, 0, -1)),
        pd.Series(labels, dtype=object),
        pd.Series(labels).convert_dtypes(),
        pd.Series(labels, dtype="category"),
        pd.Categorical(labels),
        pd.Index(labels),
        pl.Series(labels),
    ]
    for y in kinds:
        read = check_labels(y, n)
        assert read.dtype.kind == np.array(labels).dtype.kind
        assert read.tolist() == labels


def test_numbers_keep_their_width():
    assert check_labels(np.array([1, 2], np.int8), 2).dtype == np.int8
    assert check_labels(np.array([1.0, 2.0], np.float32), 2).dtype == np.float32
    assert check_labels([1, 2.0], 2).tolist() == [1, 2]
    assert check_labels(pl.Series(["x", "y"], dtype=pl.Categorical), 2).tolist() == ["x", "y"]
    assert check_labels(np.array(["x", "y"], np.dtypes.StringDType()), 2).tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ([0, 1], ValueError, "y has 2 labels for 3 sequences; needs one for each"),
        (["a", None, NAN], ValueError, "Input y contains NaN: 2 labels missing, in rows 1, 2"),
        ([0.0, NAN, 1.0], ValueError, "Input y contains NaN: 1 label missing, in row 1"),
        (np.array([0, NAN, 1]), ValueError, "Input y contains NaN: 1 label missing, in row 1"),
        (pd.Series([1, None, 2], dtype="Int64"), ValueError, "Input y contains NaN.* in row 1"),
        (pd.Categorical([1, None, 2]), ValueError, "Input y contains NaN.* in row 1"),
        (pl.Series([True, None, None]), ValueError, "Input y contains NaN.* in rows 1, 2"),
        (np.array([0, np.inf, 1]), ValueError, r"contains infinity or a value too large for dtype"),
        ([0.5, 1.5, 1], ValueError, r"Unknown label type: continuous\. Maybe .*: y\[0\] is 0\.5"),
        (
            ["a", 1, 2],
            TypeError,
            "several types: str in row 0, number in row 1. Convert them, e.g.",
        ),
        ([True, 1, 0], TypeError, "several types: bool in row 0, number in row 1"),
        ([b"a", b"b", b"c"], TypeError, r"must hold labels that are str, bool or whole.* \|S1"),
        ([[1], [2], [3]], ValueError, r"y should be a 1d array; y\[0\] is \[1\]"),
        (np.zeros((3, 2)), ValueError, r"y should be a 1d array, got an array of shape \(3, 2\)"),
        ([1, {}, 3], TypeError, "several types: number in row 0, dict in row 1"),
        (pd.to_datetime(["2020", "2021", "2022"]), TypeError, "must hold labels that are str"),
        (pl.LazyFrame({"a": [1]}), TypeError, r"must not be a LazyFrame\. Call its collect\(\)"),
        (7, TypeError, "y must be one label per sequence; got int"),
        (None, ValueError, "requires y to be passed, but the target y is None"),
    ],
)
def test_labels_that_are_none_are_refused(y, error, message):
    with pytest.raises(error, match=message):
        read_labels(y, PLAIN)


def test_a_column_vector_is_taken_with_a_warning():
    from sklearn.exceptions import DataConversionWarning

    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        assert read_labels(np.array([[1], [2], [3]]), PLAIN).tolist() == [1, 2, 3]


@pytest.mark.parametrize("library", [pd, pl])
def test_labels_come_from_a_column(library):
    X = library.DataFrame({"seq": ["AC", "GT", "GG"], "kind": ["u", "v", "u"], "file": [1, 2, 3]})
    sequences = read_sequences(X)
    assert read_labels("kind", sequences, X=X).tolist() == ["u", "v", "u"]
    assert read_labels("file", sequences, X=X).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"X has no column 'kin'\. Did you mean 'kind'\?"):
        read_labels("kin", sequences, X=X)
    gap = library.DataFrame({"seq": ["AC", "GT", "GG"], "kind": ["u", None, "u"]})
    with pytest.raises(ValueError, match=r"Input column 'kind' contains NaN: 1 label .* in row 1"):
        read_labels("kind", sequences, X=gap)


def test_labels_come_from_a_column_of_the_table_that_holds_the_sequences(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("label,sequence\n1,AC\n0,GT\n")
    labels = read_labels("label", read_sequences(path), X=path)
    assert labels.tolist() == [1, 0]
    assert labels.dtype.kind == "i"


@pytest.mark.parametrize(
    "text",
    [
        "id,label\nc,3\na,1\nb,2\nz,9\n",
        "class,seqid\n3,c\n1,a\n2,b\n",
        "note,Label,Name\nx,1,a\ny,2,b\nz,3,c\n",
        "record,kind,more\na,1,x\nb,2,x\nc,3,x\n",
        "a,1\nb,2\nc,3\n",
        "id,kind\na,1\nb,2\nc,3\na,1\n",
    ],
)
def test_labels_come_from_a_table_by_id(tmp_path, text):
    for suffix, separator in {".csv": ",", ".tsv": "\t"}.items():
        path = tmp_path / f"labels{suffix}"
        path.write_text(text.replace(",", separator))
        for y in (path, str(path)):
            assert read_labels(y, NAMED).tolist() == [1, 2, 3]


def test_labels_come_from_parquet_frames_and_dicts_by_id(tmp_path):
    sequences = read_sequences({"7": "AC", "8": "GT"})
    frame = pl.DataFrame({"id": [8, 7], "label": ["x", "y"]})
    frame.write_parquet(tmp_path / "labels.parquet")
    pandas = pd.DataFrame({"id": [8, 7], "label": ["x", "y"]})
    for y in (tmp_path / "labels.parquet", frame, pandas, {8: "x", "7": "y"}):
        assert read_labels(y, sequences).tolist() == ["y", "x"]


def test_ids_that_look_like_numbers_stay_what_they_are(tmp_path):
    (tmp_path / "labels.csv").write_text("read,kind\n007,x\n7,y\n1e3,z\n")
    sequences = read_sequences({"7": "AC", "007": "GT", "1e3": "GG"})
    assert read_labels(tmp_path / "labels.csv", sequences).tolist() == ["y", "x", "z"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,1\n", r"y\.csv has no label for 2 of 3 records; first 'b', 'c'\.$"),
        ("id,label\na,1\nq,2\np,3\n", r"2 of 3 records; .* It has 2 ids of no record, e.g. 'p'"),
        ("id,label\na,1\na,2\nb,1\nc,1\n", r"y\.csv has two labels for 'a': 1 and 2\. Keep one"),
        ("id,label\na,1\n,2\n", r"y\.csv has no id in row 1\. Fill it in, or drop the row"),
        ("id,label\na,1\nb,\nc,2\n", r"y\.csv has an empty label for 1 record; first 'b'\."),
        ("id,one,two\na,1,2\n", r"several columns that could be the labels, .* one 'label'"),
        ("x,label,y\na,1,2\n", r"several columns that could be the ids, \['x', 'y'\]\. .* 'id'"),
        ("label\n1\n", r"y\.csv must have a column of ids and one of labels; it has \['label'\]"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, text, message):
    (tmp_path / "y.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_labels(tmp_path / "y.csv", NAMED)


def test_ids_need_names():
    with pytest.raises(ValueError, match="y gives labels by id, and the sequences have no names"):
        read_labels({"a": 1}, PLAIN)


def test_labels_come_from_headers():
    sequences = described("r1 class=x", "r2 class=yy", "r3 class=x length=3")
    for y in (r"re:class=(\w+)", re.compile(r"class=(\w+)"), r"re:(r\d) class=(?P<label>\w+)"):
        assert read_labels(y, sequences).tolist() == ["x", "yy", "x"]
    assert read_labels("re:(.)", NAMED).tolist() == ["a", "b", "c"]
    fasta = io.BytesIO(b">a kind=u\nAC\n>b kind=v\nGT\n")
    assert read_labels("re:kind=(.)", read_sequences(fasta)).tolist() == ["u", "v"]


@pytest.mark.parametrize(
    ("y", "sequences", "error", "message"),
    [
        ("re:(a)", PLAIN, ValueError, "y is a pattern for headers, and the sequences have none"),
        ("re:(", NAMED, ValueError, r"y is no valid pattern: '\(': missing"),
        ("re:a", NAMED, ValueError, "the pattern of y, 'a', has 0 groups; needs one, or one named"),
        ("re:(a)(b)", NAMED, ValueError, "has 2 groups; needs one"),
        ("re:([ab])", NAMED, ValueError, "finds no label in 1 of 3 headers; first 'c'"),
        (re.compile(b"(a)"), NAMED, TypeError, "y must be a pattern of str; got bytes"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused(y, sequences, error, message):
    with pytest.raises(error, match=message):
        read_labels(y, sequences)


def test_labels_come_from_file_and_folder_names():
    sequences = sourced("x/pos/one.v2.fa.gz", "x/neg/two.FASTA", "x/pos/three")
    assert read_labels("file", sequences).tolist() == ["one.v2", "two", "three"]
    assert read_labels("folder", sequences).tolist() == ["pos", "neg", "pos"]


def test_files_in_folders_are_classes(tmp_path):
    for kind in ("coding", "other"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{kind[:2]}.fa").write_text(">r\nACGT\n>s\nAC\n")
    sequences = read_sequences(tmp_path)
    assert read_labels("folder", sequences).tolist() == ["coding", "coding", "other", "other"]
    assert read_labels("file", sequences).tolist() == ["co", "co", "ot", "ot"]


def test_what_has_no_file_has_no_label_from_it():
    with pytest.raises(ValueError, match="y is 'file', and the sequences come from no files"):
        read_labels("file", NAMED)
    with pytest.raises(ValueError, match="y is 'folder', and <BytesIO> is no file"):
        read_labels("folder", read_sequences(io.BytesIO(b">a\nAC\n")))
    with pytest.raises(ValueError, match="y is 'file', and '/' has no such name"):
        read_labels("file", sourced("/", "/", "/"))


def test_a_word_that_means_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="y is 'kind', which is none of: a column of a data frame"):
        read_labels("kind", NAMED)
    with pytest.raises(ValueError, match=r"missing\.csv': no such file"):
        read_labels(tmp_path / "missing.csv", NAMED)


@pytest.mark.parametrize("labels", [("01", "1"), ("1e5", "100000"), ("007", "8")])
def test_labels_of_text_tables_are_taken_as_they_are_written(tmp_path, labels):
    (tmp_path / "y.csv").write_text(f"id,label\na,{labels[0]}\nb,{labels[1]}\nc,{labels[0]}\n")
    found = read_labels(tmp_path / "y.csv", NAMED)
    assert found.tolist() == [labels[0], labels[1], labels[0]]


def test_plain_numbers_and_booleans_of_text_tables_stay_so(tmp_path):
    for text, labels in (("0 12 0", [0, 12, 0]), ("true false true", [True, False, True])):
        cells = zip("abc", text.split(), strict=True)
        (tmp_path / "y.csv").write_text("id,label\n" + "".join(f"{a},{b}\n" for a, b in cells))
        assert read_labels(tmp_path / "y.csv", NAMED).tolist() == labels


def test_blank_lines_of_a_table_are_passed_over(tmp_path):
    (tmp_path / "t.csv").write_text("sequence,label\nACGT,a\n\nGGTT,b\n\n")
    sequences = read_sequences(tmp_path / "t.csv")
    assert len(sequences) == 2
    assert read_labels("label", sequences, X=tmp_path / "t.csv").tolist() == ["a", "b"]


def test_labels_by_an_index_of_names_go_to_records_of_files(tmp_path):
    (tmp_path / "s.fa").write_text(">a\nAC\n>b\nGT\n>c\nGG\n")
    records = read_sequences(tmp_path / "s.fa")
    shuffled = pd.DataFrame({"label": [2, 0, 1]}, index=["c", "a", "b"])
    for y in (shuffled, shuffled["label"]):
        assert read_labels(y, records, X=tmp_path / "s.fa").tolist() == [0, 1, 2]
    other = shuffled["label"].set_axis(["x", "y", "z"])
    assert read_labels(other, records).tolist() == [2, 0, 1]
    # Beside a pandas X labels go by position, as in scikit-learn: a permutation test shuffles them.
    X = pd.Series(["AC", "GT", "GG"], index=["a", "b", "c"])
    assert read_labels(shuffled["label"], read_sequences(X), X=X).tolist() == [2, 0, 1]


def test_a_frame_of_two_columns_is_ids_and_labels_whatever_they_are_called():
    frame = pd.DataFrame({"gene": ["c", "a", "b"], "kind": ["z", "x", "y"]})
    for y in (frame, pl.from_pandas(frame), pl.from_pandas(frame).to_arrow()):
        assert read_labels(y, NAMED).tolist() == ["x", "y", "z"]


def test_labels_come_from_a_column_of_several_tables(tmp_path):
    (tmp_path / "a.csv").write_text("sequence,label\nACGT,1\nGGTT,2\n")
    (tmp_path / "b.csv").write_text("sequence,label\nCCGT,02\n")
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    found = read_labels("label", read_sequences(paths), X=paths)
    assert found.tolist() == ["1", "2", "02"]


def test_rows_of_a_slice_keep_their_own_numbers():
    frame = pd.DataFrame({"sequence": ["AC", "GT", "GG", "TT"]})
    assert read_sequences(frame).names is None
    assert read_sequences(frame.iloc[1:3]).names == ("1", "2")
    assert read_sequences(frame.iloc[::-1]).names == ("3", "2", "1", "0")
    assert read_sequences(frame["sequence"].iloc[2:]).names == ("2", "3")
