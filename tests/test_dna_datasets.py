"""Labelled sequences by name: right files, right labels, honest splits, and errors with a cure."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from pathlib import Path

import pooch
import pytest

from titans_dna.datasets import dataset_info, list_datasets, load_dataset
from titans_dna.fasta import iter_fasta

ROOT = Path(__file__).parent.parent
FASTA = ROOT / "datasets" / "arabidopsis-chloroplast.fa"
BED, CARD = FASTA.with_suffix(".bed"), FASTA.with_suffix(".md")
COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """An empty cache, an empty TITANS_DATA (returned), and no network."""

    def refuse(*_):
        raise OSError("no network")

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setenv("TITANS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def genbank():
    """The record that the bundled files were made from."""
    file = Path(os.environ.get("TITANS_DATA", "")) / "dna" / "genomes" / "NC_000932.gb"
    if not file.is_file():
        pytest.skip("needs dna/genomes/NC_000932.gb in the folder that TITANS_DATA names")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in CARD.read_text("utf-8")
    return file


def load(name, **options):
    """Load a set, or skip the test where its files are not in TITANS_DATA."""
    folder = os.environ.get("TITANS_DATA")
    for one in dataset_info(name).files:
        bundled = (ROOT / "datasets" / one.file.name).exists()
        if not bundled and not (folder and (Path(folder) / one.file.path).exists()):
            pytest.skip(f"needs {one.file.path} in the folder that TITANS_DATA names")
    return load_dataset(name, **options)


def kmers(sequences, k=30):
    strands = [s for one in sequences for s in (one, one.translate(COMPLEMENT)[::-1])]
    return {s[i : i + k] for s in strands for i in range(len(s) - k + 1)}


def coding_bases():
    exons = [line.split("\t") for line in BED.read_text("utf-8").splitlines()]
    return {base for _, start, end, *_ in exons for base in range(int(start), int(end))}


def test_the_bundled_genome_needs_no_network_and_has_its_shape(alone):
    frame = load_dataset("chloroplast")
    assert list(frame.columns) == ["id", "sequence", "label", "split", "chrom", "start", "end"]
    assert Counter(zip(frame["split"], frame["label"], strict=True)) == {
        ("train", "coding"): 336,
        ("train", "non-coding"): 305,
        ("test", "coding"): 73,
        ("test", "non-coding"): 62,
    }
    assert frame["id"].is_unique
    assert frame["id"][1] == "NC_000932.1:91-211"


def test_the_bundled_files_are_small_and_those_that_card_and_registry_name():
    for one, file in zip(dataset_info("chloroplast").files, (FASTA, BED), strict=True):
        content = file.read_bytes()
        assert hashlib.sha256(content).hexdigest() == one.file.sha256
        assert one.file.sha256 in CARD.read_text("utf-8")
        assert f"`{file.name}`, {len(content):,} bytes" in CARD.read_text("utf-8")
    assert FASTA.stat().st_size + BED.stat().st_size < 200_000


def test_every_chloroplast_window_is_where_it_says_and_has_the_label_of_its_bases():
    frame, (genome,), coding = load_dataset("chloroplast"), iter_fasta(FASTA), coding_bases()
    found = {}
    for start in range(0, 84_170 - 119, 91):
        covered = sum(base in coding for base in range(start, start + 120))
        if (covered == 0 or covered >= 108) and not start < 67_336 < start + 120:
            found[start] = "coding" if covered else "non-coding"
    assert dict(zip(frame["start"], frame["label"], strict=True)) == found
    for row in frame.itertuples():
        assert row.end - row.start == 120
        assert row.sequence == genome.sequence[row.start : row.end]
        assert row.split == ("train" if row.end <= 67_336 else "test")


def test_no_chloroplast_test_window_shares_a_30_mer_with_a_training_window():
    frame = load_dataset("chloroplast")
    train, test = (frame["sequence"][frame["split"] == part] for part in ("train", "test"))
    assert not kmers(train) & kmers(test)


def test_the_chloroplast_region_ends_where_the_inverted_repeat_begins():
    (genome,) = iter_fasta(FASTA)
    assert dataset_info("chloroplast").region == (0, 84_170)
    repeat = genome.sequence[84_170:110_434]
    assert repeat == genome.sequence[128_214:].translate(COMPLEMENT)[::-1]


def test_the_code_in_the_card_makes_the_bundled_files_byte_for_byte(genbank, tmp_path, monkeypatch):
    (code,) = re.findall("```python\n(.*?)```", CARD.read_text("utf-8"), re.DOTALL)
    (tmp_path / genbank.name).write_bytes(genbank.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / FASTA.name).read_bytes() == FASTA.read_bytes()
    assert (tmp_path / BED.name).read_bytes() == BED.read_bytes()


def test_the_bundled_genome_and_genes_are_those_biopython_reads(genbank):
    from Bio import SeqIO

    record, (genome,) = SeqIO.read(genbank, "genbank"), iter_fasta(FASTA)
    assert (genome.name, genome.sequence) == (record.id, str(record.seq))
    parts = {}
    for line in BED.read_text("utf-8").splitlines():
        chrom, start, end, name, _, strand = line.split("\t")
        assert chrom == record.id
        _, locus, number = name.split(":")
        exon = genome.sequence[int(start) : int(end)]
        exon = exon if strand == "+" else exon.translate(COMPLEMENT)[::-1]
        parts.setdefault(locus, {})[int(number)] = exon
    joined = {locus: "".join(own[n] for n in sorted(own)) for locus, own in parts.items()}
    features = [feature for feature in record.features if feature.type == "CDS"]
    assert len(features) == 85
    assert joined == {f.qualifiers["locus_tag"][0]: str(f.extract(record.seq)) for f in features}


def test_polars_gets_the_same_rows():
    frame, expected = load_dataset("chloroplast", engine="polars"), load_dataset("chloroplast")
    assert frame.columns == list(expected.columns)
    assert frame.rows() == list(expected.itertuples(index=False, name=None))


def test_every_registered_set_has_a_licence_checksums_and_pinned_addresses():
    assert list_datasets()[0] == "chloroplast"
    names = []
    for name in list_datasets():
        info = dataset_info(name)
        assert info.licence, name
        assert info.citation, name
        assert info.source, name
        for one in info.files:
            names.append(one.file.name)
            assert re.fullmatch("[0-9a-f]{64}", one.file.sha256), name
            assert one.file.url is None or re.search("/[0-9a-f]{40}/", one.file.url), name
            assert one.label in {"", *info.classes}, name
            assert one.split in {"", "train", "dev", "test"}, name
        hash(info)
    # One cache holds the files of all sets.
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "length", "counts"),
    [
        ("chloroplast", 120, {"coding": 409, "non-coding": 367}),
        ("uci-splice", 60, {"EI": 767, "IE": 768, "N": 1655}),
        ("uci-promoters", 57, {"+": 53, "-": 53}),
        ("nontata-promoters", 251, {0: 4119, 1: 4915}),
        ("gue-prom-core-tata", 70, {0: 3065, 1: 3065}),
        ("gue-tf-4", 101, {0: 10500, 1: 10500}),
        ("cnnprom-arabidopsis-tata", 251, {"promoter": 1497, "non-promoter": 2879}),
        ("ienhancer-2l-layer1", 200, {"enhancer": 1684, "non-enhancer": 1684}),
        ("species-5", 500, dict.fromkeys(["e-coli", "yeast", "arabidopsis", "worm", "fly"], 1996)),
    ],
)
def test_a_set_is_what_the_registry_says(name, length, counts):
    frame, info = load(name), dataset_info(name)
    assert list(frame.columns[:3]) == ["id", "sequence", "label"]
    assert len(frame) == info.rows
    assert frame["label"].value_counts().to_dict() == counts
    assert set(info.classes) == set(counts)
    assert frame["id"].is_unique
    assert set(frame["sequence"].str.len()) == {length}
    assert set("".join(frame["sequence"])) <= set("ACGTNDSR")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("gue-prom-core-tata", {"train": 4904, "dev": 613, "test": 613}),
        ("gue-tf-4", {"train": 19000, "dev": 1000, "test": 1000}),
        ("ienhancer-2l-layer1", {"train": 2968, "test": 400}),
        ("species-5", {"train": 8005, "test": 1975}),
    ],
)
def test_official_splits_have_their_sizes(name, rows):
    assert load(name)["split"].value_counts().to_dict() == rows


def test_uci_names_and_labels_come_without_their_padding():
    splice, promoters = load("uci-splice"), load("uci-promoters")
    assert splice.loc[0, ["id", "label"]].tolist() == ["ATRINS-DONOR-521", "EI"]
    assert splice["id"].str.fullmatch(r".*-\d+_\d").sum() == 12  # repeated names
    assert splice["sequence"].duplicated().sum() == 185
    first = ["S10", "TACTAGCAATACGCTTGCGTTCGGTGGTTAAGTATGTATAATGCGCGGGCTTGTCGT", "+"]
    assert promoters.loc[0].tolist() == first


def test_species_windows_do_not_overlap_and_lie_on_their_side_of_the_border():
    frame = load("species-5")
    for _, own in frame.groupby(["label", "chrom"]):
        own = own.sort_values("start")
        assert (own["start"].to_numpy()[1:] >= own["end"].to_numpy()[:-1]).all()
        by_part = own.groupby("split")
        assert by_part["end"].max()["train"] <= by_part["start"].min()["test"]
    parts = frame.groupby(["split", "label"]).size()
    assert set(parts["train"]) == {1601}
    assert set(parts["test"]) == {395}
    assert not frame["chrom"].isin(["chrM", "ChrM", "ChrC", "MtDNA"]).any()


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    with pytest.raises(ValueError, match=r"unknown data set 'UCI_splice'\. Did you mean 'uci-spl"):
        load_dataset("UCI_splice")
    with pytest.raises(ValueError, match=r"unknown data set 'x'\. Known: chloroplast, uci-splice"):
        dataset_info("x")


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="`engine` must be 'pandas' or 'polars'; got 'dask'"):
        load_dataset("chloroplast", engine="dask")


def test_an_absent_file_is_named_with_the_place_it_belongs(alone):
    with pytest.raises(ConnectionError) as failed:
        load_dataset("gue-tf-4")
    for part in ("data set 'gue-tf-4'", "no network", "put the file gue-tf-4-train.csv (sha256 7b"):
        assert part in str(failed.value)


@pytest.mark.parametrize("place", ["dna/GUE/tf/4/train.csv", "gue-tf-4-train.csv"])
def test_a_damaged_file_is_refused_by_name(alone, place):
    file = alone / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("sequence,label\nACGT,1\n")
    with pytest.raises(ValueError, match=r"train\.csv is not the registered file .* 'gue-tf-4'"):
        load_dataset("gue-tf-4")


def test_a_file_with_a_common_name_is_not_taken_for_another_sets(alone):
    (alone / "train.csv").write_text("sequence,label\nACGT,1\n")
    with pytest.raises(ConnectionError, match=r"gue-tf-4-train\.csv"):
        load_dataset("gue-tf-4")


def test_titans_data_that_names_no_folder_is_an_error(alone, monkeypatch):
    monkeypatch.setenv("TITANS_DATA", str(alone / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"TITANS_DATA names .* which is no folder"):
        load_dataset("uci-promoters")
