"""Regions: what a BED file says, and the letters of its lines."""

from __future__ import annotations

import gzip
import io
import random
from itertools import pairwise

import pytest

from titans_dna.fasta import FastaError, open_fasta
from titans_dna.regions import Region, iter_regions, iter_windows, read_bed

BED = b"""browser position chr1:1-2
track name="x"
# comment
chr1\t2\t6

chr2\t0\t3\tgene one\t12.5\t-\t0\t3\t0
chr1 0 4 . . +
track1 0 4 x\r
"""


@pytest.fixture
def genome(tmp_path):
    (tmp_path / "genome.fa").write_text(">chr1 first\nAACC\nGGTT\nac\n>chr2\nTTGR\n>track1\nACGT\n")
    with open_fasta(tmp_path / "genome.fa", index_folder=tmp_path / "index") as fasta:
        yield fasta


def lines(text):
    return read_bed(io.BytesIO(text))


def test_columns_are_read_and_what_is_no_region_is_left_out():
    source = "<BytesIO>"
    assert lines(BED) == [
        Region("chr1", 2, 6, None, None, ".", 4, source),
        Region("chr2", 0, 3, "gene one", 12.5, "-", 6, source),
        Region("chr1", 0, 4, None, None, "+", 7, source),
        Region("track1", 0, 4, "x", None, ".", 8, source),
    ]


def test_a_file_may_be_compressed_or_have_other_line_ends(tmp_path):
    path = tmp_path / "a.bed"
    expected = [region[:7] for region in lines(BED)]
    for text in (BED, gzip.compress(BED), BED.replace(b"\r", b"").replace(b"\n", b"\r\n")):
        path.write_bytes(text)
        found = read_bed(path)
        assert [region[:7] for region in found] == expected
        assert found[0].source == str(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"chr1\t1", "line 2, 'chr1.t1', is no region: it needs"),
        (b"\t1\t2", "is no region"),
        (b"chrom\tstart\tend", "no whole number; is this a header line"),
        (b"chr1\t1.5\t2", "no whole number"),
        (b"chr1\t5\t5", "ends where it starts, or before.*0-based and half-open"),
        (b"chr1\t6\t5", "ends where it starts, or before"),
        (b"chr1\t-1\t5", "starts before 0"),
        (b"chr1\t1\t5\tx\thigh", "has 'high' as its score"),
        (b"chr1\t1\t5\tx\t0\tplus", "has 'plus' as its strand"),
    ],
)
def test_a_bad_line_is_an_error_with_its_number(line, message):
    with pytest.raises(FastaError, match=message) as error:
        lines(b"chr1\t1\t2\n" + line + b"\n")
    assert "<BytesIO>: line 2" in str(error.value)


def test_a_source_without_regions_is_an_error(tmp_path):
    for text in (b"", b"# only a comment\n"):
        with pytest.raises(FastaError, match="holds no regions; a line of BED"):
            lines(text)
    with pytest.raises(FastaError, match="no such file"):
        read_bed(tmp_path / "none.bed")


def test_regions_are_cut_out_in_the_order_of_the_file(genome):
    found = [(r.name, r.description, r.sequence) for r in iter_regions(genome, io.BytesIO(BED))]
    assert found == [
        ("chr1:2-6", "chr1:2-6", "CCGG"),
        ("gene one", "gene one chr2:0-3(-)", "CAA"),
        ("chr1:0-4(+)", "chr1:0-4(+)", "AACC"),
        ("x", "x track1:0-4", "ACGT"),
    ]
    assert [(r.line, r.source) for r in iter_regions(genome, io.BytesIO(BED))][1] == (
        6,
        "<BytesIO>",
    )


def test_a_genome_may_be_given_by_its_path_and_regions_as_a_list(genome, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    regions = [Region("chr1", 8, 10), Region("chr2", 3, 4, strand="-")]
    assert [r.sequence for r in iter_regions(genome.path, regions)] == ["ac", "Y"]
    assert [r.name for r in iter_regions(genome, regions)] == ["chr1:8-10", "chr2:3-4(-)"]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (
            b"chr1 5 11 x",
            r"'chr1:5-11' at line 1 is not within the 10 letters of record 'chr1' of .*genome\.fa;",
        ),
        (
            b"1 5 6",
            r"region '1:5-6' at line 1 is on no record of .*genome\.fa; did you mean 'chr1'",
        ),
    ],
)
def test_a_region_outside_the_genome_is_an_error_that_names_both(genome, region, message):
    with pytest.raises(FastaError, match=message) as error:
        list(iter_regions(genome, io.BytesIO(region)))
    assert str(error.value).startswith("<BytesIO>")


def test_the_other_strand_of_every_region_is_its_reverse_complement(genome):
    generator = random.Random(0)
    for _ in range(200):
        start, end = sorted(generator.sample(range(11), 2))
        (plus,) = iter_regions(genome, [Region("chr1", start, end, strand="+")])
        (minus,) = iter_regions(genome, [Region("chr1", start, end, strand="-")])
        assert minus.sequence == plus.sequence[::-1].translate(
            str.maketrans("ACGTacgt", "TGCAtgca")
        )


def test_places_are_looked_up_before_the_first_sequence_is_read(tmp_path):
    (tmp_path / "g.fa").write_text(">chr1\nACGTACGT\n")
    regions = [Region("chr1", 0, 4), Region("chr1", 6, 9, line=2)]
    with pytest.raises(FastaError, match=r"'chr1:6-9' at line 2 is not within the 8 letters"):
        next(iter_regions(tmp_path / "g.fa", regions))


def test_blocks_are_counted_and_read_with_what_lies_between():
    line = b"chr1\t10\t60\tgene\t0\t+\t10\t60\t0\t2\t5,5\t0,45\n"
    (region,) = read_bed(io.BytesIO(line))
    assert (region.start, region.end, region.blocks) == (10, 60, 2)


@pytest.mark.parametrize(("width", "step"), [(1, None), (3, 1), (3, 2), (4, 4), (4, 6), (99, 5)])
def test_windows_reach_both_ends_of_every_record(genome, width, step):
    places = {}
    for region in iter_windows(genome, width, step):
        places.setdefault(region.name, []).append((region.start, region.end))
    assert list(places) == list(genome.lengths)
    for name, length in genome.lengths.items():
        starts = [start for start, _ in places[name]]
        assert starts == sorted(set(starts))
        assert places[name][0][0] == 0
        assert places[name][-1][1] == length
        assert {end - start for start, end in places[name]} == {min(width, length)}
        strides = {after - before for before, after in pairwise(starts[:-1])}
        assert strides <= {step or width}
    letters = {
        record.name: record.sequence for record in iter_regions(genome, iter_windows(genome, 3))
    }
    assert letters["chr2:0-3"] == genome.fetch("chr2", 0, 3)


@pytest.mark.parametrize(("width", "step"), [(0, None), (2.0, None), (5, 0), (5, True)])
def test_windows_are_of_whole_bases(genome, width, step):
    with pytest.raises(ValueError, match="must be an int >= 1; got"):
        iter_windows(genome, width, step)
