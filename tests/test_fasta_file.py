"""Any part of any record: the right letters in every process and thread, from no stale index."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from Bio.Seq import reverse_complement
from fasta_inputs import Fetches, count_wrong, make_genome
from torch.utils.data import DataLoader

from titans_dna.fasta import FastaError, iter_fasta, open_fasta

# Python 3.12 warns of every fork of a process that has threads; this is what is tested here.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path


@pytest.fixture
def genome(folder):
    """A genome in use, and its letters."""
    truth = make_genome(folder / "genome.fa")
    with open_fasta(folder / "genome.fa", index_folder=folder / "index") as fasta:
        assert fasta.fetch("chr1", 0, 60) == truth["chr1"][:60]
        yield fasta, truth


@forks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_no_fetch_is_wrong_in_processes(genome, start):
    tasks = [Fetches(*genome, 2000, seed) for seed in range(4 if start == "fork" else 2)]
    with multiprocessing.get_context(start).Pool(len(tasks)) as pool:
        answer = pool.map_async(count_wrong, tasks, chunksize=1)
        ours = count_wrong(Fetches(*genome, 2000, 9))
        assert ours + sum(answer.get(60)) == 0


@forks
def test_no_fetch_is_wrong_in_forked_children_that_use_the_handle_of_their_parent(genome):
    fetches = Fetches(*genome, 1000)  # not pickled, so that the open file itself is inherited

    def work(queue):
        queue.put(count_wrong(fetches))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=work, args=(queue,)) for _ in range(4)]
    for child in children:
        child.start()
    ours = count_wrong(fetches)
    assert ours + sum(queue.get(timeout=60) for _ in children) == 0
    for child in children:
        child.join()


def test_no_fetch_is_wrong_in_threads(genome):
    tasks = [Fetches(*genome, 1000, seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(count_wrong, tasks)) == 0


@forks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_no_fetch_is_wrong_in_the_workers_of_a_data_loader(genome, start):
    fetches = Fetches(*genome, 3000)
    loader = DataLoader(fetches, batch_size=100, num_workers=2, multiprocessing_context=start)
    assert sum(int(batch.sum()) for batch in loader) == 0
    assert count_wrong(fetches) == 0


def test_the_other_strand_is_the_reverse_complement_with_codes_and_case(folder):
    letters = "ACGTRYSWKMBDHVNacgtryswkmbdhvnAAC"
    (folder / "a.fa").write_text(f">a\n{letters}\n>rna\nACGUu\n")
    with open_fasta(folder / "a.fa") as fasta:
        assert fasta.fetch("a", 0, len(letters), "-") == reverse_complement(letters)
        assert fasta.fetch("a", 2, 7, strand="-") == reverse_complement(letters[2:7])
        assert fasta.fetch("rna", strand="-") == "aACGT"
        assert fasta.fetch("a", np.int64(1), np.int32(3)) == "CG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chrX", 0, 1), "has no record 'chrX'; did you mean 'chr"),
        (("1", 0, 1), r"has no record '1'; did you mean 'chr1'\?"),
        (("zzz", 0, 1), "has no record 'zzz'; it has 'chr1', 'chr2', 'chr3' and 1 more"),
        ((["chr1"], 0, 1), "has no record"),
        (("chr4", 0, 8), r"'chr4' has 7 letters; \[0, 8\) is no part of it.*0-based"),
        (("chr4", 8, 8), "7 letters"),
        (("chr4", -1, 3), r"\[-1, 3\)"),
        (("chr4", 5, 3), r"\[5, 3\) .*start <= end"),
        (("chr4", 0, -1), r"\[0, -1\)"),
        (("chr4", 0, 3, "."), "`strand` must be '\\+' or '-'; got '.'"),
        (("chr4", 0, 3, -1), "`strand` must be"),
    ],
)
def test_what_is_not_there_is_an_error_never_a_shorter_answer(genome, arguments, message):
    with pytest.raises(FastaError, match=message):
        genome[0].fetch(*arguments)


def test_positions_must_be_whole_numbers(genome):
    for start, end in [(0.0, 3), (0, "3")]:
        with pytest.raises(TypeError, match="integer"):
            genome[0].fetch("chr1", start, end)


def test_names_and_lengths_are_those_of_the_file(genome):
    fasta, truth = genome
    assert fasta.names == ("chr1", "chr2", "chr3", "chr4")
    assert fasta.lengths == {name: len(letters) for name, letters in truth.items()}
    assert len(fasta) == 4
    assert "chr1" in fasta
    assert "chr9" not in fasta
    assert [fasta.fetch(name, 3, 3) for name in truth] == [""] * 4


def test_an_older_file_in_the_place_of_the_indexed_one_is_noticed(folder):
    path, index = folder / "a.fa", folder / "index"
    first, second = (b">a\n%s\n%s\n" % (b * 60, b * 20) for b in (b"A", b"C"))
    for text, letter in [(first, "A"), (second, "C"), (first, "A")]:
        path.write_bytes(text)
        os.utime(path, ns=(10**18, 10**18))  # as old as it was, and of the same size
        assert open_fasta(path, index_folder=index).fetch("a", 58, 62) == letter * 4
    path.write_bytes(b">a\nGGGG\n")
    os.utime(path, ns=(10**17, 10**17))
    assert open_fasta(path, index_folder=index).fetch("a") == "GGGG"
    assert len(list(index.glob("*.npz"))) == 1  # what no file has any more is not kept


def test_a_wrong_fai_beside_the_file_is_neither_used_nor_changed(folder):
    path = folder / "a.fa"
    path.write_text(">a\nACGTAC\nGT\n>b\nTTTT\n")
    (folder / "a.fa.fai").write_text("a\t4\t5\t2\t3\n")
    assert open_fasta(path).fetch("a") == "ACGTACGT"
    assert open_fasta(path).fetch("b", 1, 3) == "TT"
    assert (folder / "a.fa.fai").read_text() == "a\t4\t5\t2\t3\n"
    assert sorted(p.name for p in folder.iterdir()) == ["a.fa", "a.fa.fai", "cache"]


def test_a_last_line_that_is_longer_gives_no_wrong_window(folder):
    path = folder / "a.fa"
    letters = "".join(random.Random(0).choices("ACGT", k=78))
    path.write_text(f">a\n{letters[:30]}\n{letters[30:60]}\n{letters[60:]}{letters}\n>b\nGG\n")
    letters += letters
    with open_fasta(path) as fasta:
        for start in range(len(letters) - 20):
            assert fasta.fetch("a", start, start + 20) == letters[start : start + 20]


def test_a_file_changed_under_an_open_one_is_an_error(folder):
    path = folder / "a.fa"
    path.write_text(">a\nAAAA\n")
    fasta = open_fasta(path)
    assert fasta.fetch("a") == "AAAA"
    path.write_text(">a\nCC\nCC\n")  # the same file, so that the open one changes, too
    with pytest.raises(FastaError, match="has changed since it was opened; open it again"):
        fasta.fetch("a")


def test_a_file_replaced_under_an_open_one_gives_old_letters_or_an_error(folder):
    path = folder / "a.fa"
    path.write_text(">a\nAAAA\n")
    fasta = open_fasta(path)
    assert fasta.fetch("a") == "AAAA"
    (folder / "b.fa").write_text(">a\nCC\nCC\n")
    (folder / "b.fa").replace(path)
    assert fasta.fetch("a") == "AAAA"
    answers = []

    def fetch():
        try:
            answers.append(fasta.fetch("a"))
        except FastaError as error:
            answers.append(str(error))

    thread = threading.Thread(target=fetch)
    thread.start()
    thread.join()
    assert "has changed" in answers[0]
    path.unlink()
    thread = threading.Thread(target=fetch)
    thread.start()
    thread.join()
    assert "has gone" in answers[1]
    with pytest.raises(FastaError, match="no such file"):
        pickle.loads(pickle.dumps(fasta))


@forks
def test_many_processes_may_index_at_once(folder):
    truth = make_genome(folder / "genome.fa")
    (folder / "odd.fa").write_text((folder / "genome.fa").read_text() + "\n>x\n\nAC GT\n")
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(6), context.Queue()

    def work(name):
        barrier.wait()
        with open_fasta(folder / name, index_folder=folder / "index") as fasta:
            queue.put(all(fasta.fetch(chromosome) == truth[chromosome] for chromosome in truth))

    children = [context.Process(target=work, args=(n,)) for n in ["genome.fa", "odd.fa"] * 3]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [True] * 6
    for child in children:
        child.join()
    kept = sorted(path.suffix for path in (folder / "index").iterdir())
    assert kept == [".fa", ".lock", ".lock", ".npz", ".npz"]


def test_a_damaged_index_is_built_again(folder):
    path, index = folder / "a.fa", folder / "index"
    path.write_text(">a\nAC\n\nGT\n")
    for suffix in (".npz", ".fa"):
        assert open_fasta(path, index_folder=index).fetch("a") == "ACGT"
        (kept,) = index.glob(f"*{suffix}")
        kept.write_bytes(b"PK\3\4 no index")
        assert open_fasta(path, index_folder=index).fetch("a") == "ACGT"
        (kept,) = index.glob(f"*{suffix}")
        kept.unlink()


def test_the_index_goes_where_something_can_be_written(folder, monkeypatch):
    path = folder / "a.fa"
    path.write_text(">a\nACGT\n")
    (folder / "file").write_text("no folder")
    monkeypatch.setattr("pooch.os_cache", lambda name: folder / "file" / name)
    (folder / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    assert open_fasta(path).fetch("a", 1, 3) == "CG"
    assert list((folder / "temporary").glob("titans-stream-*/*.npz"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "file"))
    with pytest.raises(FastaError, match=r"nothing can be written in .*`index_folder`"):
        open_fasta(path)
    with pytest.raises(FastaError, match=r"cannot be kept in .*Not a directory.*another `index_"):
        open_fasta(path, index_folder=folder / "file" / "index")


def test_a_pickled_file_opens_again_if_it_is_the_same(genome, folder, monkeypatch):
    fasta, truth = genome
    stored = pickle.dumps(fasta)
    assert len(stored) < 1000
    monkeypatch.chdir(folder)
    with pickle.loads(stored) as again:
        assert again.fetch("chr2", 49, 102) == truth["chr2"][49:102]
    (folder / "genome.fa").write_text(">chr1\nACGT\n")
    with pytest.raises(FastaError, match="has changed since it was opened"):
        pickle.loads(stored)


def test_a_relative_path_means_the_same_from_another_folder(folder, monkeypatch):
    (folder / "a.fa").write_text(">a\nACGT\n")
    monkeypatch.chdir(folder)
    fasta = open_fasta("a.fa", index_folder="index")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert fasta.fetch("a", 0, 2) == "AC"
    assert pickle.loads(pickle.dumps(fasta)).fetch("a", 2, 4) == "GT"
    assert (folder / "index").is_dir()


def test_what_is_closed_stays_closed(genome):
    fasta, _ = genome
    fasta.close()
    fasta.close()
    for closed in (fasta, pickle.loads(pickle.dumps(fasta))):
        with pytest.raises(FastaError, match="is closed; open it again"):
            closed.fetch("chr1", 0, 1)


def test_a_thread_that_ends_leaves_no_open_file(genome):
    fasta, _ = genome
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("open files cannot be counted here")
    before = len(list(open_files.iterdir()))
    for _ in range(5):
        thread = threading.Thread(target=fasta.fetch, args=("chr1", 0, 9))
        thread.start()
        thread.join()
    assert len(list(open_files.iterdir())) == before


def test_duplicate_names_are_an_error_or_go_by_policy(folder):
    path = folder / "a.fa"
    path.write_text(">a x\nAC\n>b\nGG\n>a y\nTT\n")
    with pytest.raises(FastaError, match="record 'a' at line 5 has the name of an earlier"):
        open_fasta(path)
    renamed, first = (open_fasta(path, duplicates=policy) for policy in ("rename", "first"))
    assert {name: renamed.fetch(name) for name in renamed.names} == {
        "a": "AC", "b": "GG", "a_2": "TT",
    }  # fmt: skip
    assert {name: first.fetch(name) for name in first.names} == {"a": "AC", "b": "GG"}
    assert renamed.lengths == {"a": 2, "b": 2, "a_2": 2}
    with pytest.raises(ValueError, match=r"`duplicates` must be one of.*got 'keep'"):
        open_fasta(path, duplicates="keep")


def test_only_a_file_can_be_opened(folder):
    with pytest.raises(FastaError, match=r"a folder; only a file .* iter_fasta"):
        open_fasta(folder)
    with pytest.raises(FastaError, match="no such file"):
        open_fasta(folder / "none.fa")
    with pytest.raises(FastaError, match="no such file"):
        open_fasta("ACGT" * 5000)
    with pytest.raises(TypeError, match="`path` must be a path; got list"):
        open_fasta([folder])
    os.mkfifo(folder / "pipe")
    with pytest.raises(FastaError, match="no regular file"):
        open_fasta(folder / "pipe")


def test_a_hundred_thousand_records_are_found_by_name(folder):
    path = folder / "reads.fa"
    path.write_text("".join(f">r{n}\nAC{'GT'[n % 2]}\n" for n in range(100_000)))
    with open_fasta(path) as fasta:
        for n in random.Random(0).sample(range(100_000), 6000):  # more than are kept at hand
            assert fasta.fetch(f"r{n}") == f"AC{'GT'[n % 2]}"
    assert sum(1 for _ in iter_fasta(path)) == 100_000
