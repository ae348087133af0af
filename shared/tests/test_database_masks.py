"""No value of a masked or excluded column is on the disk, in the warehouse, in an event or in an error."""

import base64
import binascii
import hashlib
import hmac
import logging
import sqlite3
import traceback
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dlt.common.runtime.run_context import switched_run_context

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.sources.database import Table
from shared.sources.database.masks import Constant, Hash, Mask, Truncate
from shared.sources.dlt_settings import RepositoryRunContext
from shared.testing.source_database import SourceDatabase, load, shop_assets

KEY = "a-key-of-the-masks-with-40-characters-or-so"
HIDDEN = "marker-of-a-masked-value"
SHOWN = "marker-of-a-shown-value"
MASKS: Mapping[str, Mask] = {
    "email": Hash(),
    "card": Constant(),
    "street": Truncate(characters=2),
    "born": Truncate(unit="year"),
}


def people(mode: Any = "full", **declared: Any) -> Table:
    key = () if mode == "full" else "email"
    return Table("people", mode, **{"masks": MASKS, "exclude": ["notes"], "key": key} | declared)


@pytest.fixture
def source(shop: SourceDatabase, monkeypatch: pytest.MonkeyPatch) -> SourceDatabase:
    """Return a database whose table `people` has markers in the columns that are hidden."""
    monkeypatch.setenv("SOURCES__SHOP__MASK_KEY", KEY)
    shop.run(
        "CREATE TABLE people (email text PRIMARY KEY, card text, street text, born date, "
        "notes text, name text, changed timestamptz DEFAULT now())"
    )
    add(shop, 1, 3)
    return shop


def add(source: SourceDatabase, first: int, last: int, size: int = 1) -> None:
    source.run(
        f"INSERT INTO people SELECT '{HIDDEN}-' || n || '@example.com', '{HIDDEN}-card-' || n, "
        f"'{HIDDEN}-street-' || n, '1987-06-05', '{HIDDEN}-notes-' || n, "
        f"'{SHOWN}-' || n || repeat(md5(n::text), {size}) FROM generate_series({first}, {last}) AS n"
    )


def texts_below(folder: Path) -> dict[str, str]:
    """Return the text of each file, decoded and decompressed, by path."""
    return {str(path.relative_to(folder)): text_of(path) for path in files(folder)}


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def text_of(path: Path) -> str:
    content = path.read_bytes()
    text = content.decode("latin-1")
    if path.suffix == ".parquet":
        with suppress(pa.ArrowInvalid):  # a file of a load that failed may have no end
            text += repr(pq.read_table(path).to_pylist())
    elif content[8:12] == b"DUCK":
        with duckdb.connect(str(path), read_only=True) as connection:
            tables = connection.sql(
                "SELECT database_name, schema_name, table_name FROM duckdb_tables()"
            )
            for names in tables.fetchall():
                quoted = ".".join(f'"{name}"' for name in names)
                text += repr(connection.sql(f"FROM {quoted}").fetchall())
    elif content.startswith(b"SQLite"):
        with closing(sqlite3.connect(path)) as stored:
            text += "".join(stored.iterdump())
    elif content.startswith(b"\x1f\x8b"):
        text += zlib.decompress(content, wbits=31).decode()
    return text + "".join(decompressed(text))


def decompressed(text: str) -> Iterator[str]:
    """Yield what is in the compressed states that dlt stores."""
    for word in text.replace('"', "'").split("'"):
        try:
            yield zlib.decompress(base64.b64decode(word, validate=True)).decode()
        except (binascii.Error, zlib.error, ValueError):
            continue


def assert_hidden(texts: Mapping[str, str]) -> None:
    assert [path for path, text in texts.items() if HIDDEN in text or KEY in text] == []


def has(texts: Mapping[str, str], marker: str, suffix: str) -> bool:
    return any(marker in text for path, text in texts.items() if path.endswith(suffix))


DECLARATIONS = {
    "full": people(),
    "by transaction": people("incremental"),
    "by cursor": people("incremental", cursor="changed", overlap=timedelta(0)),
    "append": people("append"),
    "mirror": people("mirror"),
    "history": people("history"),
    "changes": people("changes"),
    "in ranges": people("incremental", rows_per_load=1),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_a_load_leaves_no_masked_value(source: SourceDatabase, tmp_path: Path, name: str) -> None:
    source.run("ANALYZE people")
    load(DECLARATIONS[name])
    add(source, 4, 4)
    load(DECLARATIONS[name])
    texts = texts_below(tmp_path)
    assert_hidden(texts)
    assert has(texts, f"{SHOWN}-4", "warehouse.duckdb"), "the search finds what is not masked"
    rows = warehouse.query("SELECT * FROM shop_data.people WHERE name LIKE '%-4%'")
    (row,) = rows
    expected = hmac.new(KEY.encode(), f"{HIDDEN}-4@example.com".encode(), hashlib.sha256)
    assert (row["email"], row["card"], row["street"]) == (expected.hexdigest(), "***", HIDDEN[:2])
    assert str(row["born"]) == "1987-01-01"
    assert "notes" not in row
    count = warehouse.query("SELECT count(DISTINCT email) AS n FROM shop_data.people")
    assert count == [{"n": 4}]


def test_a_load_that_fails_while_it_reads_leaves_no_masked_value(
    source: SourceDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    add(source, 5, 12000, 50)
    source.run(
        f"INSERT INTO people (email, card, name) VALUES ('zz-{HIDDEN}', '{HIDDEN}', 'last');"
        "CREATE VIEW broken AS SELECT email, card, street, born, notes, name, "
        "CASE WHEN name = 'last' THEN card::int END AS number FROM people"
    )
    broken = Table("broken", masks=MASKS, exclude=["notes"])
    with pytest.raises(Exception, match="may have a value of a masked column") as error:
        load(broken)
    assert HIDDEN not in "".join(traceback.format_exception(error.value))
    assert HIDDEN not in caplog.text
    texts = texts_below(tmp_path)
    assert_hidden(texts)
    assert any(SHOWN in text for text in texts.values()), "the search finds what is not masked"


def test_a_load_that_fails_before_its_commit_leaves_no_masked_value(
    source: SourceDatabase, tmp_path: Path
) -> None:
    load(people())
    source.run(f"DELETE FROM people; INSERT INTO people VALUES ('{HIDDEN}', NULL)")
    source.run(f"UPDATE people SET name = '{SHOWN}-of-the-failed-run'")
    with pytest.raises(Exception, match="people") as error:
        load(people(), min_row_ratio=0.9)
    assert HIDDEN not in "".join(traceback.format_exception(error.value))
    texts = texts_below(tmp_path)
    assert_hidden(texts)
    assert has(texts, f"{SHOWN}-of-the-failed-run", ".parquet")


def test_no_event_of_a_run_has_a_masked_value(
    source: SourceDatabase, instance: dg.DagsterInstance
) -> None:
    assert source

    resources = {"dlt": WarehouseDltResource()}
    result = dg.materialize([shop_assets(people())], resources=resources, instance=instance)
    events = "".join(map(repr, instance.all_logs(result.run_id)))
    assert SHOWN in events, "the preview has what is not masked"
    assert HIDDEN not in events
    assert KEY not in events


def test_without_the_key_nothing_is_loaded(
    source: SourceDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source
    monkeypatch.delenv("SOURCES__SHOP__MASK_KEY")
    with pytest.raises(Exception, match=r"people: column email: .*SOURCES__SHOP__MASK_KEY"):
        load(people())
    assert not warehouse.list_tables()


def test_the_key_may_be_in_secrets_toml(
    source: SourceDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert source
    monkeypatch.delenv("SOURCES__SHOP__MASK_KEY")
    (tmp_path / ".dlt").mkdir()
    (tmp_path / ".dlt" / "secrets.toml").write_text(f'[sources.shop]\nmask_key = "{KEY}"\n')
    with switched_run_context(RepositoryRunContext(str(tmp_path))):
        load(people())
    assert warehouse.query("SELECT min(length(email)) AS n FROM shop_data.people") == [{"n": 64}]


@pytest.mark.parametrize("mode", ["incremental", "append", "history"])
@pytest.mark.parametrize(
    ("before", "now", "key"),
    [
        (MASKS, {**MASKS, "name": Hash()}, KEY),
        (MASKS, {}, KEY),
        ({}, MASKS, KEY),
        (MASKS, MASKS, KEY[::-1]),
    ],
    ids=["more", "none", "first", "key"],
)
def test_rows_with_other_masks_are_not_added_to_a_table(
    source: SourceDatabase,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    before: Any,
    now: Any,
    key: str,
) -> None:
    load(people(mode, masks=before))
    add(source, 4, 4)
    monkeypatch.setenv("SOURCES__SHOP__MASK_KEY", key)
    with pytest.raises(Exception, match="masks or their key have changed"):
        load(people(mode, masks=now))
    assert warehouse.query("SELECT count(*) AS n FROM shop_data.people") == [{"n": 3}]


def test_the_place_of_a_wrong_value_is_not_shown_by_a_masked_key(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_warehouse / "shop.db")) as shop:
        shop.execute("CREATE TABLE people (email TEXT PRIMARY KEY, age INTEGER)")
        shop.execute(f"INSERT INTO people VALUES ('{HIDDEN}', '{SHOWN}')")
        shop.commit()
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", f"sqlite:///{tmp_warehouse / 'shop.db'}")
    monkeypatch.setenv("SOURCES__SHOP__MASK_KEY", KEY)
    with pytest.raises(Exception, match=f"column age .*{SHOWN}") as error:
        load(Table("people", masks={"email": Hash()}))
    assert HIDDEN not in "".join(traceback.format_exception(error.value))
