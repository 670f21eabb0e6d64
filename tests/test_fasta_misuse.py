"""What is no DNA FASTA is refused, with file, record, line and cure."""

from __future__ import annotations

import gzip
import io
import lzma
from unittest import mock

import pytest
from Bio import bgzf

from titans_dna import fasta_sources
from titans_dna.fasta import FastaError, iter_fasta, iter_pieces, open_fasta

TEXT = b">a\n" + b"ACGTTGCAAC" * 3000 + b"\n>b\nGG\n"

REFUSED = {
    "empty": (b"", "is empty"),
    "blank": (b"\n \r\n\t", "is empty, or holds blank lines only"),
    "fastq": (b"@read1\nACGT\n+\nIIII\n", r"line 1 begins with '@read1'.*is this FASTQ\? Convert"),
    "fastq, blank first": (b"\n\n@read1\nACGT\n", r"line 3 begins with '@read1'"),
    "nul": (b">a\nAC\0GT\n", r"record 'a' at line 2 holds '\\x00'.*UTF-16 or a binary file"),
    "nul in header": (b">a\0b\nACGT\n", "line 1 holds a NUL byte"),
    "utf-16": (">a\nACGT\n".encode("utf-16"), "is UTF-16 text; convert it by `iconv"),
    "utf-16 without mark": (">a\nACGT\n".encode("utf-16-le"), "NUL.*UTF-16"),
    "utf-16, big end, without mark": (">a\nACGT\n".encode("utf-16-be"), "binary.*UTF-16"),
    "binary": (bytes(range(1, 256)), "line 1 holds binary data"),
    "binary letters": (b">a\nAC\x01GT\n", r"line 2 holds '\\x01'.*binary file"),
    "latin-1 letters": (b">a\nAC\xe9GT\n", r"line 2 holds '\\xe9'.*binary file"),
    "protein": (
        b">chr6\nACGT\n>chr7 x\nACGT\n\nMKE\n",
        r"record 'chr7' at line 6 holds 'E', not a nucleotide code: is this a protein FASTA\?",
    ),
    "protein, cr": (b">a\rACGT\r>b\rACGT\rMKL\r", "record 'b' at line 5 holds 'L'.*protein"),
    "stop codon": (b">a\nACGT*\n", r"line 2 holds '\*'.*protein"),
    "gaps": (b">a\nAC--GT\n", "line 2 holds '-'.*alignment"),
    "qualities": (b">a\n40 40 30\n", "line 2 holds '4'.*qualities"),
    "header within a line": (b">a\nACGT>b\nACGT\n", "line 2 holds '>'.*new line"),
    "comment within": (b">a\nACGT\n;x\nACGT\n", "line 3 holds ';'.*comment"),
    "other letters": (b">a\nAC?GT\n", r"line 2 holds '\?'.*ACGTRY"),
    "no header": (b"ACGT\nACGT\n", "line 1 is 'ACGT'.*header line: put '>name'"),
    "header late": (b"ACGT\n>b\nACGT\n", "line 1 is 'ACGT'"),
    "comment first": (b"; x\n>a\nACGT\n", "line 1 begins with '; x'.*comment lines"),
    "genbank": (b"LOCUS  NC_1\n", "GenBank"),
    "embl": (b"ID   X; SV 1\n", "EMBL"),
    "web page": (b"<!DOCTYPE html>\n", "web page"),
    "no name": (b">a\nACGT\n>\nACGT\n", "record at line 3 has no name; write one"),
    "blank name": (b">a\nACGT\n>  \t\nACGT\n", "record at line 3 has no name"),
    "no name at the end": (b">a\nACGT\n>", "record at line 3 has no name"),
    "bzip2": (b"BZh91AY&SY" + bytes(30), "bzip2; decompress"),
    "xz": (lzma.compress(b">a\nACGT\n"), "xz; decompress"),
    "zip": (b"PK\3\4" + bytes(30), "zip archive; unpack"),
    "2bit": (bytes.fromhex("4327411a") + bytes(30), "2bit file"),
    "bam": (gzip.compress(b"BAM\1" + bytes(30)), "BAM file"),
    "gzip of nothing": (gzip.compress(b""), "is empty"),
    "gzip of protein": (gzip.compress(b">a\nMKLE\n"), "line 2 holds 'L'"),
    "gzip, cut": (gzip.compress(TEXT)[:-20], "truncated; get the file again"),
    "gzip, cut in its head": (gzip.compress(TEXT)[:5], "truncated"),
    "gzip, cut in its check sum": (gzip.compress(TEXT)[:-3], "truncated"),
    "gzip, damaged": (gzip.compress(TEXT)[:-8] + bytes(8), "damaged"),
    "gzip, more behind": (gzip.compress(TEXT) + b"ACGT", "damaged"),
    "gzip, second member cut": (gzip.compress(TEXT) + gzip.compress(TEXT)[:-4], "truncated"),
}


@pytest.mark.parametrize("block", [11, 2**20])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_fasta_of_dna_is_refused_with_the_reason(case, block, tmp_path):
    text, message = REFUSED[case]
    path = tmp_path / "odd.fa"
    path.write_bytes(text)
    with mock.patch.object(fasta_sources, "BLOCK", block):
        for read in (
            lambda: list(iter_fasta(path)),
            lambda: list(iter_pieces(path, 3)),
            lambda: open_fasta(path, index_folder=tmp_path / "index"),
        ):
            with pytest.raises(FastaError, match=message) as error:
                read()
            assert str(error.value).startswith(str(path))
    left = [file.name for file in (tmp_path / "index").iterdir()]
    assert not [name for name in left if not name.endswith(".lock")]  # no half an index


def test_a_bgzf_file_cut_between_its_blocks_is_refused(tmp_path):
    path = tmp_path / "cut.fa.gz"
    with bgzf.BgzfWriter(path, "wb") as file:
        for number in range(3):
            file.write(b">r%d\n" % number + b"ACGT" * 10 + b"\n")
            file.flush()
    whole = path.read_bytes()
    assert len(list(iter_fasta(path))) == 3
    path.write_bytes(whole[:-28])
    with pytest.raises(FastaError, match="truncated"):
        list(iter_fasta(path))


def test_pieces_before_a_fault_are_given_and_the_fault_is_not_passed_over():
    pieces = iter_pieces(io.BytesIO(b">a\nACGT\n>b\nAC\n>c\nACLT\n"), 3)
    with mock.patch.object(fasta_sources, "BLOCK", 1):
        assert [next(pieces).sequence for _ in range(3)] == [b"ACG", b"T", b"AC"]
        with pytest.raises(FastaError, match="record 'c' at line 6 holds 'L'"):
            next(pieces)


def test_a_header_that_does_not_end_is_refused():
    with pytest.raises(FastaError, match=r"header line 'ACGTACGT.*does not end"):
        list(iter_fasta(io.BytesIO(b">" + b"ACGTACGT" * (2**21 + 2**18))))


@pytest.mark.parametrize("read", [iter_fasta, iter_pieces])
def test_sources_are_checked_at_the_call_not_at_the_first_record(read, tmp_path):
    for source, error, message in [
        (tmp_path / "none.fa", FastaError, "none.fa': no such file or folder"),
        ([], FastaError, "list of FASTA sources is empty"),
        (tmp_path, FastaError, "folder without FASTA files.*.fa, .fasta"),
        ("ACGTACGT", FastaError, "no such file.*looks like a sequence: pass .* in a list"),
        ("ACGT" * 5000, FastaError, "no such file.*looks like a sequence"),
        (7, TypeError, "must be a path, a folder, an open file.*got int"),
        (None, TypeError, "got NoneType"),
        ([tmp_path / "none.fa", 7], FastaError, "no such file"),
    ]:
        with pytest.raises(error, match=message):
            read(source)
    with pytest.raises(ValueError, match=r"`duplicates` must be one of .*'keep'.* got 'drop'"):
        read(io.BytesIO(b">a\nA\n"), duplicates="drop")


@pytest.mark.parametrize("length", [0, -1, 2.0, True, None])
def test_a_piece_has_at_least_one_letter(length):
    with pytest.raises(ValueError, match="`piece_length` must be an int >= 1; got"):
        iter_pieces(io.BytesIO(b">a\nA\n"), length)


def test_files_that_cannot_be_read_say_so(tmp_path):
    path = tmp_path / "a.fa"
    path.write_bytes(b">a \xe9\nACGT\n")
    with path.open(encoding="ascii") as file, pytest.raises(FastaError, match="binary mode, 'rb'"):
        list(iter_fasta(file))
    with pytest.raises(FastaError, match=r"a\.fa: cannot be read: .*closed"):
        list(iter_fasta(file))
    with path.open("rb") as file:
        records = iter_fasta(path)
        path.unlink()
        with pytest.raises(FastaError, match="cannot be opened: No such file"):
            list(records)


def test_messages_stay_short_however_long_the_names(tmp_path):
    text = b">" + b"x" * 10_000 + b"\nMKLE\n"
    with pytest.raises(FastaError) as error:
        list(iter_fasta(io.BytesIO(text)))
    assert len(str(error.value)) < 400
    with pytest.raises(FastaError) as error:
        iter_fasta("y" * 10_000)
    assert len(str(error.value)) < 400
