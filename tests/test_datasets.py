"""Data sets: found, verified, downloaded once, and refused with a reason."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pooch
import pytest

from titans_core import registry
from titans_ts import datasets
from titans_ts.datasets import dataset_info, list_datasets, load_dataset

ROOT = Path(__file__).parent.parent
WEATHER_SHA256 = "62f0609f787158128aa2bd102967173a4953122dd4f872bf1d502cae1037df0b"
TINY = b"date,load,name,class\n2020-01-01,1,a,0\n2020-01-02,?,b,1\n2020-01-03,3.5,c,0\n"
TINY_SHA256 = hashlib.sha256(TINY).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no TITANS_DATA."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda _: folder)
    monkeypatch.delenv("TITANS_DATA", raising=False)
    return folder


@pytest.fixture
def server(tmp_path):
    """A local HTTP server: its address, the folder it serves, and the paths it was asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder, asked
        running.shutdown()
        thread.join()


@pytest.fixture
def register(tmp_path, monkeypatch):
    """A function that makes the registry hold one set, `tiny`, with the given url."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setattr(registry, "bundle_folder", lambda: folder)

    def write(url=None):
        (folder / "registry.toml").write_text(
            '[tiny]\ntitle = "three days"\npath = "ts/tiny.csv"\nsource = "the moon"\n'
            f'sha256 = "{TINY_SHA256}"\nlicence = "none"\ncitation = "none"\nfrequency = "D"\n'
            'time_columns = ["date"]\ntime_format = "%Y-%m-%d"\ndrop = ["name", "class"]\n'
            "split = [1, 1, 1]\n" + (f'url = "{url}/tiny.csv"\n' if url else "")
        )

    return write


def test_the_bundled_set_needs_no_network_and_has_its_shape(cache):
    frame = load_dataset("seattle-weather")
    assert frame.shape == (1461, 4)
    assert list(frame.columns) == ["precipitation", "temp_max", "temp_min", "wind"]
    assert set(frame.dtypes) == {np.dtype("float64")}
    assert frame.index.equals(pd.date_range("2012-01-01", "2015-12-31", name="date"))
    assert frame.notna().all(axis=None)
    assert frame.loc["2012-01-02"].tolist() == [10.9, 10.6, 2.8, 4.5]
    assert not cache.exists()


def test_the_bundled_file_is_the_one_that_card_and_registry_name():
    file = ROOT / "datasets" / "seattle-weather.csv"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == WEATHER_SHA256
    assert WEATHER_SHA256 in file.with_suffix(".md").read_text("utf-8")
    assert dataset_info("seattle-weather").sha256 == WEATHER_SHA256


def test_polars_gets_the_same_values_with_the_time_column_first():
    frame, expected = (
        load_dataset("seattle-weather", engine="polars"),
        load_dataset("seattle-weather"),
    )
    assert frame.columns == ["date", *expected.columns]
    assert isinstance(frame.schema["date"], pl.Datetime)
    assert (frame["date"].to_numpy() == expected.index.to_numpy()).all()
    np.testing.assert_array_equal(frame.drop("date").to_numpy(), expected.to_numpy())


def test_every_registered_set_has_a_checksum_a_licence_and_a_sound_split():
    assert list_datasets()[0] == "seattle-weather"
    for name in list_datasets():
        info = dataset_info(name)
        assert re.fullmatch("[0-9a-f]{64}", info.sha256), name
        assert info.licence, name
        assert info.citation, name
        assert info.url is None or re.search("/[0-9a-f]{40}/", info.url), f"{name}: not pinned"
        train_end, validation_end, test_end = info.split_borders(100_000)
        assert 0 < train_end < validation_end < test_end <= 100_000, name


def test_the_splits_are_those_of_the_published_benchmarks():
    assert dataset_info("ETTh1").split_borders(17420) == (8640, 11520, 14400)
    assert dataset_info("ETTm2").split_borders(69680) == (34560, 46080, 57600)
    assert dataset_info("Weather").split_borders(52696) == (36887, 42157, 52696)
    assert dataset_info("seattle-weather").split_borders(1461) == (731, 1096, 1461)
    with pytest.raises(ValueError, match=r"split of 'ETTh1' needs 14400 rows; got 100\."):
        dataset_info("ETTh1").split_borders(100)


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    with pytest.raises(ValueError, match=r"unknown data set 'etth1'\. Did you mean 'ETTh1'"):
        load_dataset("etth1")
    with pytest.raises(ValueError, match=r"unknown data set 'xyz'\. Known: seattle-weather, ETTh1"):
        dataset_info("xyz")


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="`engine` must be 'pandas' or 'polars'; got 'dask'"):
        load_dataset("seattle-weather", engine="dask")


def test_a_good_file_is_downloaded_once_and_then_read_from_the_cache(cache, server, register):
    url, folder, asked = server
    (folder / "tiny.csv").write_bytes(TINY)
    register(url)
    first, second = load_dataset("tiny"), load_dataset("tiny")
    assert list(first.columns) == ["load"]
    np.testing.assert_array_equal(first["load"], [1.0, np.nan, 3.5])
    pd.testing.assert_frame_equal(first, second)
    assert asked == ["/tiny.csv"]
    assert [file.name for file in cache.iterdir()] == ["tiny.csv"]


def test_a_file_read_in_pieces_is_the_same(monkeypatch):
    whole = load_dataset("seattle-weather")
    monkeypatch.setattr(datasets, "_ROWS_AT_ONCE", 500)
    pd.testing.assert_frame_equal(load_dataset("seattle-weather"), whole)


def test_a_corrupted_download_is_refused_and_not_kept(cache, server, register):
    url, folder, _ = server
    (folder / "tiny.csv").write_bytes(TINY[:-9])
    register(url)
    with pytest.raises(
        ValueError, match=r"'tiny' from http.* was refused, nothing was kept: .*hash"
    ):
        load_dataset("tiny")
    assert list(cache.iterdir()) == []


def test_a_dead_server_gives_an_error_that_says_where_to_put_the_file(cache, server, register):
    url, _, _ = server
    register(url)  # the server lives, but has no such file
    with pytest.raises(ConnectionError, match=r"could not download the data set 'tiny'.*404"):
        load_dataset("tiny")
    register("http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(ConnectionError) as failed:
        load_dataset("tiny")
    for part in ("http://127.0.0.1:9/tiny.csv", f"tiny.csv (sha256 {TINY_SHA256})", str(cache)):
        assert part in str(failed.value)
    assert list(cache.iterdir()) == []


def test_a_set_without_download_says_where_to_get_it(cache, register):
    register(url=None)
    with pytest.raises(FileNotFoundError, match=r"no download\. .*tiny\.csv.*from the moon"):
        load_dataset("tiny")


@pytest.mark.parametrize("place", ["ts/tiny.csv", "tiny.csv"])
def test_titans_data_is_searched_by_path_and_by_bare_name(
    cache, register, tmp_path, monkeypatch, place
):
    file = tmp_path / "data" / place
    file.parent.mkdir(parents=True)
    file.write_bytes(TINY)
    register("http://127.0.0.1:9")
    monkeypatch.setenv("TITANS_DATA", str(tmp_path / "data"))
    assert len(load_dataset("tiny")) == 3


def test_a_wrong_file_in_titans_data_is_refused_by_name(cache, register, tmp_path, monkeypatch):
    (tmp_path / "tiny.csv").write_bytes(b"date,load\n")
    register("http://127.0.0.1:9")
    monkeypatch.setenv("TITANS_DATA", str(tmp_path))
    wrong = hashlib.sha256(b"date,load\n").hexdigest()
    with pytest.raises(ValueError, match=rf"tiny\.csv is not the registered file.*got {wrong}"):
        load_dataset("tiny")


def test_titans_data_that_names_no_folder_is_an_error(cache, register, tmp_path, monkeypatch):
    register("http://127.0.0.1:9")
    monkeypatch.setenv("TITANS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(
        FileNotFoundError, match=r"TITANS_DATA names '.*nowhere', which is no folder"
    ):
        load_dataset("tiny")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ETTh1", (17420, 7)),
        ("ETTm1", (69680, 7)),
        ("Weather", (52696, 21)),
        ("ILI", (966, 7)),
        ("metro-traffic", (48204, 5)),
        ("elec2", (45312, 5)),
        ("nyc-taxi", (10320, 1)),
    ],
)
def test_a_public_set_is_what_the_registry_says(name, shape):
    info, folder = dataset_info(name), os.environ.get("TITANS_DATA")
    if not folder or not (Path(folder) / info.path).exists():
        pytest.skip(f"needs {info.path} in the folder that TITANS_DATA names")
    frame = load_dataset(name)
    assert frame.shape == shape
    assert isinstance(frame.index, pd.DatetimeIndex) == bool(info.time_columns)
    if info.time_columns:
        first, step = frame.index[0], pd.tseries.frequencies.to_offset(info.frequency)
        assert frame.index.to_series().diff().median() == first + step - first


def test_the_wheel_holds_three_packages_and_the_data_and_nothing_else(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("titans_stream-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        weather = archive.read("titans_core/_datasets/seattle-weather.csv")
    assert hashlib.sha256(weather).hexdigest() == WEATHER_SHA256
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"titans_core", "titans_ts", "titans_dna"}
    assert {f"{top}/py.typed" for top in tops} <= set(names)
    data = {path.name for path in (ROOT / "datasets").iterdir()}
    assert [name for name in names if "_datasets/" in name] == [
        f"titans_core/_datasets/{name}" for name in sorted(data)
    ]
    assert {"registry.toml", "registry-dna.toml", "arabidopsis-chloroplast.fa"} <= data
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
