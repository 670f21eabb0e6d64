"""FASTA in order: the same as Biopython, whatever it comes in, without holding it whole."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import sys
import tracemalloc
import types
from pathlib import Path
from unittest import mock

import pyfaidx
import pytest
from Bio import SeqIO, bgzf
from fasta_inputs import FOREIGN, ODD
from hypothesis import example, given, settings
from hypothesis import strategies as st

from titans_dna import fasta_index, fasta_sources
from titans_dna.fasta import FastaError, iter_fasta, iter_pieces, open_fasta

ROOT = Path(__file__).parent.parent


def ours(source, **options):
    return [(r.name, r.description, r.sequence) for r in iter_fasta(source, **options)]


def pieces_joined(source, length):
    """Records put together from pieces, which are checked on the way."""
    found, at = [], 0
    for piece in iter_pieces(source, length):
        if piece.start == 0:
            found.append((piece.name, piece.description, ""))
        assert piece.start == at
        assert len(piece.sequence) == length or piece.is_last
        assert len(piece.sequence) <= length
        at = 0 if piece.is_last else at + length
        found[-1] = (*found[-1][:2], found[-1][2] + piece.sequence.decode())
    assert at == 0
    return found


def plain_parser(text):
    """What a FASTA text says, line by line; None if it must be refused."""
    records = []
    for line in io.StringIO(text, newline=None):
        if line.startswith(">"):
            records.append((line[1:].rstrip(), []))
        elif records:
            records[-1][1].append("".join(line.split()))
        elif line.strip():
            return None
    found = [((title.split() or [""])[0], title, "".join(lines)) for title, lines in records]
    codes = set("ACGTURYSWKMBDHVNacgturyswkmbdhvn")
    wrong = any(not name or set(letters) - codes for name, _, letters in found)
    return None if wrong or not found else found


@pytest.fixture(params=ODD)
def odd(request, tmp_path):
    path = tmp_path / "odd.fa"
    path.write_bytes(ODD[request.param])
    with path.open(encoding="utf-8") as file:
        return path, [(r.id, r.description, str(r.seq)) for r in SeqIO.parse(file, "fasta")]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 2**20])
def test_what_biopython_reads_is_read_the_same(odd, block):
    path, expected = odd
    with mock.patch.object(fasta_sources, "BLOCK", block):
        assert ours(path) == expected
        assert pieces_joined(path, 3) == expected


def test_it_is_the_same_from_gzip_bgzf_and_open_files_whatever_their_names(odd, tmp_path):
    path, expected = odd
    text = path.read_bytes()
    cut = len(text) // 2
    (tmp_path / "plain.gz").write_bytes(text)
    (tmp_path / "gzip").write_bytes(gzip.compress(text))
    members = gzip.compress(text[:cut]) + gzip.compress(b"") + gzip.compress(text[cut:])
    (tmp_path / "members.fa").write_bytes(members + b"\0" * 100)
    with bgzf.BgzfWriter(tmp_path / "bgzf.fa", "wb") as file:
        file.write(text)
    for name in ("plain.gz", "gzip", "members.fa", "bgzf.fa"):
        for block in (7, 2**20):
            with mock.patch.object(fasta_sources, "BLOCK", block):
                assert ours(tmp_path / name) == expected, name
        with (tmp_path / name).open("rb") as file:
            assert ours(file) == expected, name
            assert not file.closed
    with path.open(encoding="utf-8") as file:
        assert ours(file) == expected
    assert ours(io.StringIO(text.decode(), newline="")) == expected


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_what_is_surely_meant_is_read_although_biopython_refuses(text):
    ((name, _, letters),) = ours(io.BytesIO(text))
    assert (name, letters) == ("a", "ACGT")


def test_there_are_at_least_forty_odd_files():
    assert len(ODD) >= 40


@settings(max_examples=400, deadline=None)
@given(
    st.text("ACGTn>ae \t\r\n", max_size=60).map(lambda text: ">a" + text)
    | st.lists(
        st.tuples(
            st.text("abé >\t", max_size=6),
            st.text("ACGTacgtNn", min_size=1, max_size=9),
            st.sampled_from(["\n", "\n", "\n", "\r\n", "\r", "\n\n"]),
            st.integers(1, 9),
        ),
        min_size=1,
        max_size=5,
    ).map(
        lambda records: "".join(
            f">x{title}{end}" + "".join(letters[i : i + n] + end for i in range(0, 9, n))
            for title, letters, end, n in records
        )
    ),
    st.integers(1, 40),
)
@example(">a\nAC\nA\nA", 1)
@example(">a\nAC\nACG\n\n\n>b", 4)
@example(">a\r\n\r", 18)
def test_any_text_is_read_as_by_a_ten_line_parser_or_refused(text, block):
    expected, raw = plain_parser(text), text.encode()
    with (
        mock.patch.object(fasta_sources, "BLOCK", block),
        mock.patch.object(fasta_index, "_BLOCK", block),
    ):
        if expected is None:
            with pytest.raises(FastaError):
                ours(io.BytesIO(raw))
            return
        assert ours(io.BytesIO(raw)) == expected
        assert ours(io.BytesIO(gzip.compress(raw))) == expected
        assert pieces_joined(io.BytesIO(raw), block) == expected


def test_records_know_their_file_and_line(tmp_path):
    (tmp_path / "b.fa").write_bytes(b"\r\n>a\r\nAC\r\n\r\nGT\r\n>b\r\n>c\r\nA")
    (tmp_path / "a.fa").write_bytes(b">a\rAC\r>b\r\r\r>c")
    found = [(r.name, r.line, r.source) for r in iter_fasta([tmp_path / "b.fa", tmp_path / "a.fa"])]
    b, a = str(tmp_path / "b.fa"), str(tmp_path / "a.fa")
    assert found == [("a", 2, b), ("b", 6, b), ("c", 7, b), ("a", 1, a), ("b", 3, a), ("c", 6, a)]
    assert [p.line for p in iter_pieces(tmp_path / "b.fa", 1)] == [2, 2, 2, 2, 6, 7]


def test_a_folder_is_read_file_by_file_in_order(tmp_path):
    for place in ("b/2.fna", "b/1.FASTA", "a.fa.gz", "c.fas.bgz", ".hidden.fa", ".git/x.fa"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(f">{Path(place).name}\nACGT\n")
    for place in ("notes.txt", "proteins.faa", "a.fa.fai"):
        (tmp_path / place).write_text("no FASTA")
    names = [record.name for record in iter_fasta(tmp_path)]
    assert names == ["a.fa.gz", "1.FASTA", "2.fna", "c.fas.bgz"]
    assert next(iter_fasta(str(tmp_path / "b"))).source == str(tmp_path / "b" / "1.FASTA")


def test_standard_input_is_a_source():
    code = "from titans_dna.fasta import iter_fasta; print(*[r.sequence for r in iter_fasta('-')])"
    for text in (b">a\nAC\nGT\n>b\nG\n", gzip.compress(b">a\nACGT\n>b\nG\n")):
        done = subprocess.run(
            [sys.executable, "-c", code], input=text, capture_output=True, cwd=ROOT, check=True
        )
        assert done.stdout.split() == [b"ACGT", b"G"]


def test_a_pyfaidx_object_gives_its_names_and_case_but_the_true_letters(tmp_path):
    path = tmp_path / "uneven.fa"
    path.write_text(">a one\nACGT\nacgtac\n>b two\nGG\n>c\nTT\n")
    fasta = pyfaidx.Fasta(
        str(path), key_function=str.upper, filt_function=lambda key: key != "B",
        sequence_always_upper=True,
    )  # fmt: skip
    assert ours(fasta) == [("A", "a one", "ACGTACGTAC"), ("C", "c", "TT")]
    assert [p.sequence for p in iter_pieces([fasta], 4)] == [b"ACGT", b"ACGT", b"AC", b"TT"]
    long = pyfaidx.Fasta(str(path), read_long_names=True)
    assert [name for name, _, _ in ours(long)] == ["a one", "b two", "c"]
    with pytest.raises(TypeError, match="split_char"):
        iter_fasta(pyfaidx.Fasta(str(path), split_char="|"))
    fasta.close()
    long.close()


@pytest.mark.parametrize(
    ("policy", "names", "letters"),
    [
        ("keep", ["a", "a", "a_2", "a"], "ACGT"),
        ("rename", ["a", "a_2", "a_2_2", "a_3"], "ACGT"),
        ("first", ["a", "a_2"], "AG"),
    ],
)
def test_duplicate_names_go_by_policy_across_files(policy, names, letters, tmp_path):
    text = ODD["duplicate names thrice"]
    found = ours(io.BytesIO(text), duplicates=policy)
    assert ([name for name, _, _ in found], "".join(s for *_, s in found)) == (names, letters)
    half = text.index(b">a_2")
    two = [io.BytesIO(text[:half]), io.BytesIO(text[half:])]
    assert ours(two, duplicates=policy) == found
    assert [p.name for p in iter_pieces(io.BytesIO(text), 3, duplicates=policy)] == names


def test_duplicate_names_can_be_an_error():
    with pytest.raises(FastaError, match=r"record 'a' at line 3 has the name .*'rename'"):
        ours(io.BytesIO(ODD["duplicate names thrice"]), duplicates="error")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_record_of_64_million_letters_is_never_held_whole(tmp_path, compress):
    line = "".join(random.Random(0).choices("ACGT", k=79)).encode() + b"\n"
    path = tmp_path / "long.fa"
    with path.open("wb") as file:
        file.write(compress(b">long\n"))
        part = compress(line * (8 * 2**20 // 80))
        for _ in range(8):
            file.write(part)
    tracemalloc.start()
    letters = sum(len(piece.sequence) for piece in iter_pieces(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert letters == 8 * (8 * 2**20 // 80) * 79
    assert peak < 16 * 2**20


def test_records_come_as_they_are_read():
    read = []

    class Slow(io.BytesIO):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

    with mock.patch.object(fasta_sources, "BLOCK", 32):
        records = iter_fasta(Slow(b">a\nACGT\n" * 1000))
        assert isinstance(records, types.GeneratorType)
        assert not read
        next(records)
    assert len(read) < 5


@pytest.mark.parametrize("block", [1, 4, 2**20])
def test_random_access_gives_what_biopython_reads(odd, tmp_path, block):
    path, expected = odd
    with mock.patch.object(fasta_index, "_BLOCK", block):
        genome = open_fasta(path, duplicates="rename", index_folder=tmp_path / "index")
    with genome:
        assert len(genome) == len(expected)
        for name, (_, _, letters) in zip(genome.names, expected, strict=True):
            n = len(letters)
            assert genome.lengths[name] == n
            assert genome.fetch(name) == letters
            starts = range(n + 1) if n <= 40 else random.Random(0).sample(range(n), 40)
            for start in starts:
                ends = range(start, n + 1) if n <= 40 else (start + 1, (start + n) // 2, n)
                assert [genome.fetch(name, start, end) for end in ends] == [
                    letters[start:end] for end in ends
                ]


@settings(max_examples=100, deadline=None)
@given(
    first=st.text("ACGTn \r\n", min_size=1, max_size=40),
    second=st.text("ACGT\n", max_size=40),
    block=st.integers(1, 20),
)
def test_random_access_to_any_text_gives_what_reading_in_order_does(
    tmp_path_factory, first, second, block
):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "fuzz.fa"
    path.write_bytes(f">a\n{first}\n>b\n{second}".encode())
    with (
        mock.patch.object(fasta_index, "_BLOCK", block),
        open_fasta(path, index_folder=folder) as f,
    ):
        for record in iter_fasta(path):
            assert f.fetch(record.name) == record.sequence
            for start in range(len(record.sequence)):
                assert f.fetch(record.name, start, start + 1) == record.sequence[start]
                assert f.fetch(record.name, start) == record.sequence[start:]
