"""The same assets read a bucket: only the URL of the drop folder differs."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import fsspec
import pytest
import requests
from moto.server import ThreadedMotoServer

from csv_etl.automation import dropped_files_sensor
from csv_etl.definitions import defs
from shared import warehouse
from shared.sources.csv import DropFolder, InvalidFileError
from shared.sources.files import source as files

SAMPLE = Path(__file__).parents[3] / "data" / "drop" / "2018-01-22.csv"


@pytest.fixture
def bucket(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A drop folder in a bucket of an S3 server on loopback."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    files = fsspec.filesystem("s3")
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=5)
    files.mkdir("raw")
    files.pipe("raw/drop/2018-01-22.csv", SAMPLE.read_bytes())
    files.pipe("raw/drop/below/it's.csv", SAMPLE.read_bytes())
    files.pipe("raw/drop/packed.csv.gz", gzip.compress(SAMPLE.read_bytes()))
    files.pipe("raw/outside.csv", SAMPLE.read_bytes())
    monkeypatch.setenv("DROP_FOLDER", "s3://raw/drop")
    yield "s3://raw/drop"
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("pushed_down_from", [0, 10**9])
@pytest.mark.parametrize("path", ["2018-01-22.csv", "below/it's.csv", "packed.csv.gz"])
def test_a_file_in_a_bucket_loads_like_a_local_one(
    bucket: str,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    pushed_down_from: int,
) -> None:
    monkeypatch.setattr(files, "_PUSHDOWN_MIN_BYTES", pushed_down_from)
    job = defs.resolve_implicit_global_asset_job_def()
    for _ in range(2):
        result = job.execute_in_process(
            asset_selection=[
                dg.AssetKey(["csv_data", "import_file"]),
                dg.AssetKey(["csv_data", "share_prices"]),
            ],
            instance=instance,
            run_config={"ops": {"import_file": {"config": {"path": path}}}},
        )
        assert result.success
    rows = warehouse.query(
        "SELECT file_name, count(*) AS n, sum(spread)::VARCHAR AS total "
        "FROM csv_data.share_prices GROUP BY 1"
    )
    assert rows == [{"file_name": path, "n": 8, "total": "2327.8543"}]
    (loads,) = warehouse.query("SELECT count(DISTINCT load_id) AS n FROM csv_data._dlt_loads")
    (load,) = warehouse.query(
        "SELECT count(*) AS n FROM csv_data.share_prices JOIN csv_data._dlt_loads AS loads "
        "ON _dlt_load_id = load_id WHERE inserted_at = (SELECT min(inserted_at) FROM csv_data._dlt_loads)"
    )
    assert loads["n"] == 2
    assert load["n"] == (8 if pushed_down_from == 0 else 0), "an unchanged file is skipped"
    assert not list(warehouse.duckdb_path().with_suffix(".working").iterdir()), "no copy is left"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../outside.csv", "not a path below"),
        ("s3://raw/outside.csv", "not a path below"),
        ("missing.csv", "is not in"),
        ("below", "is a folder"),
    ],
)
def test_a_path_outside_the_bucket_folder_is_refused(bucket: str, path: str, why: str) -> None:
    with pytest.raises(InvalidFileError, match=why):
        DropFolder(bucket).resolve(path)


def test_the_sensor_sees_new_and_changed_files_in_a_bucket(
    bucket: str, instance: dg.DagsterInstance
) -> None:
    cursor = None
    requested = []
    for tick in range(4):
        if tick == 2:
            fsspec.filesystem("s3").pipe("raw/drop/new.csv", b"new")
        result = dropped_files_sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        requested.append([request.partition_key for request in result.run_requests or []])
    assert requested == [[], ["2018-01-22.csv", "below/it's.csv", "packed.csv.gz"], [], ["new.csv"]]


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_a_storage_without_its_library_reports_what_to_install(scheme: str) -> None:
    with pytest.raises(ImportError, match=r"(?i)install"):
        DropFolder(f"{scheme}://bucket/drop")
