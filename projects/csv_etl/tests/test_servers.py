"""The same assets read an SFTP server: only the URL of the drop folder differs."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from csv_etl.automation import dropped_files_sensor
from csv_etl.definitions import defs
from shared import warehouse
from shared.testing.file_server import FileServer
from shared.testing.sftp_server import SftpServer

SAMPLE = Path(__file__).parents[3] / "data" / "drop" / "2018-01-22.csv"


@pytest.fixture
def server(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SftpServer]:
    with SftpServer() as started:
        (tmp_warehouse / "known_hosts").write_text(started.known_hosts)
        monkeypatch.setenv("HOME", str(tmp_warehouse))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        monkeypatch.setenv("SFTP_KNOWN_HOSTS", str(tmp_warehouse / "known_hosts"))
        monkeypatch.setenv("DROP_FOLDER", started.url(tmp_warehouse / "drop"))
        monkeypatch.setenv("DROP_FOLDER_PASSWORD", started.password)
        yield started


def load(
    instance: dg.DagsterInstance, path: str, *, raises: bool = True
) -> dg.ExecuteInProcessResult:
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[
            dg.AssetKey(["csv_data", "import_file"]),
            dg.AssetKey(["csv_data", "share_prices"]),
        ],
        instance=instance,
        run_config={"ops": {"import_file": {"config": {"path": path}}}},
        raise_on_error=raises,
    )


def test_a_checked_file_loads_and_no_event_has_the_password(
    server: SftpServer,
    tmp_warehouse: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_warehouse / "drop" / "price list #1.csv").write_bytes(SAMPLE.read_bytes())
    for _ in range(2):
        assert load(instance, "price list #1.csv").success
    (row,) = warehouse.query(
        "SELECT file_name, count(*) AS n FROM csv_data.share_prices GROUP BY 1"
    )
    assert row == {"file_name": "price list #1.csv", "n": 8}
    wrong = "a wrong/password#1"
    monkeypatch.setenv("DROP_FOLDER_PASSWORD", wrong)
    failed = load(instance, "price list #1.csv", raises=False)
    assert not failed.success
    events = "".join(
        str(record) for run in instance.get_runs() for record in instance.all_logs(run.run_id)
    )
    assert "refuses the login" in events
    assert server.password not in events
    assert wrong not in events


def test_the_sensor_waits_until_an_upload_is_complete(
    server: SftpServer, tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    file = tmp_warehouse / "drop" / "new.csv"
    cursor, requested = None, []
    for written in (b"date", b"date,share_price", SAMPLE.read_bytes(), b"", b""):
        if written:
            file.write_bytes(written)
            os.utime(file, (1, 1))
        result = dropped_files_sensor(dg.build_sensor_context(instance=instance, cursor=cursor))
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
        requested.append([request.partition_key for request in result.run_requests or []])
    assert requested == [[], [], [], ["new.csv"], []]


def test_the_sensor_says_that_http_has_no_listing(
    tmp_warehouse: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileServer(tmp_warehouse / "drop") as files:
        monkeypatch.setenv("DROP_FOLDER", files.url)
        result = dropped_files_sensor(dg.build_sensor_context(instance=instance))
    assert isinstance(result, dg.SkipReason)
    assert "cannot be listed" in str(result.skip_message)
