"""Propose the declaration of Parquet or JSON files: their types are in the files."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.libs.pyarrow import py_arrow_to_table_schema_columns
from dlt.common.schema.typing import TColumnSchema

from shared.sources.drop_folder import DropFolder, InvalidFileError
from shared.sources.files.json_lines import value_at
from shared.sources.files.json_text import DECODER, dump_json
from shared.sources.proposals.proposal import MAX_ROWS, Proposal, find_key_of_table, open_sample

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
"""How the names of JSON files end: with an object in each line, and with one array of objects."""

_INTEGER_LIMIT = 2**63
_BATCH_ROWS = 20_000
_MAX_DEPTH = 3  # of the array with the rows in a JSON object
_DIGITS_OF_DOUBLE, _MAX_DIGITS = 15, 38


def propose_parquet(*paths: Path) -> Proposal:
    """Propose a format for Parquet files: columns that fit all of them.

    Raises:
        InvalidFileError: one cannot be read, has a type that dlt does not have, or one that no column has
            together with that of another file.
    """
    tables = [_read_parquet(path, MAX_ROWS // len(paths)) for path in paths]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:
        raise InvalidFileError(_type_difference(paths, tables)) from None
    found = py_arrow_to_table_schema_columns(table.schema)
    present = Counter(name for each in tables for name in each.column_names)
    columns: dict[str, TColumnSchema] = {}
    for name, hints in found.items():
        column: Any = {"data_type": hints["data_type"]}
        if hints["data_type"] == "decimal":
            column |= {"precision": hints["precision"], "scale": hints.get("scale", 0)}
        columns[name] = column
        if hints.get("timezone") is False:
            columns[name]["timezone"] = False
        is_filled = not table.column(name).null_count and table.num_rows
        if is_filled and present[name] == len(tables):
            columns[name]["nullable"] = False
    notes = missing_in_files(present, len(tables))
    options: Mapping[str, Any] = {"optional": [*notes]} if notes else {}
    for name in columns:
        types = {
            str(each.schema.field(name).type): None for each in tables if name in each.schema.names
        }
        if len(types) > 1:
            note = f"the files have the types {' and '.join(types)}"
            notes[name] = "; ".join(filter(None, [note, notes.get(name)]))
    key = find_key_of_table(table, columns)
    rows = table.num_rows
    return Proposal(paths[0], "ParquetFormat", ".parquet", rows, columns, key, notes, options)


def missing_in_files(present: Mapping[str, int], files: int) -> dict[str, str]:
    """Return a note for each column that not all files have.

    Args:
        present: how many files have a column.
        files: how many files there are.
    """
    return {
        name: f"only in {count} of {files} files"
        for name, count in present.items()
        if count < files
    }


def _read_parquet(path: Path, rows: int) -> pa.Table:
    """Return the first rows of a file."""
    try:
        parquet = pq.ParquetFile(path)
        table = pa.Table.from_batches(
            islice(parquet.iter_batches(min(rows, _BATCH_ROWS)), -(-rows // _BATCH_ROWS)),
            parquet.schema_arrow,
        )
        py_arrow_to_table_schema_columns(parquet.schema_arrow)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidFileError(f"{path.name} cannot be read as Parquet: {error}") from None
    return table


def _type_difference(paths: Sequence[Path], tables: Sequence[pa.Table]) -> str:
    """Return which column has types in two files that no column has together."""
    seen: dict[str, tuple[pa.Field, Path]] = {}
    for path, table in zip(paths, tables, strict=True):
        for field in table.schema:
            first, where = seen.setdefault(field.name, (field, path))
            try:
                pa.unify_schemas(
                    [pa.schema([first]), pa.schema([field])], promote_options="permissive"
                )
            except pa.ArrowException:
                return (
                    f"{field.name} is {first.type} in {where.name} and {field.type} in {path.name}"
                )
    return "the types of a column differ"


def propose_json(*paths: Path) -> Proposal:
    """Propose a format for files with a JSON object in each line, or with one JSON array of objects.

    Raises:
        InvalidFileError: one has something else.
    """
    suffix = next(each for each in JSON_SUFFIXES if each in paths[0].name.lower())
    rows_in, others = _place_of_rows(paths[0]) if suffix == ".json" else ("", [])
    files = [_objects(path, suffix, rows_in)[: MAX_ROWS // len(paths)] for path in paths]
    objects = [each for file in files for each in file]
    present = Counter(name for row in objects for name in row)
    not_in_all = missing_in_files(
        Counter(name for file in files for name in {key: 0 for row in file for key in row}),
        len(files),
    )
    columns, notes = {}, {}
    for name, count in present.items():
        values = [row[name] for row in objects if row.get(name) is not None]
        columns[name], note = json_type(values)
        if len(values) == len(objects):
            columns[name]["nullable"] = False
        if count < len(objects):
            share = not_in_all.get(name) or f"only {count:,} of {len(objects):,} objects have it"
            note = "; ".join(filter(None, [note, share]))
        if note:
            notes[name] = note
    optional = [name for name, count in present.items() if count < len(objects)]
    plain = {
        name: [str(row.get(name)) for row in objects]
        for name, hints in columns.items()
        if hints["data_type"] in ("text", "bigint", "date", "timestamp")
    }
    kinds = {name: columns[name] for name in plain}
    key = find_key_of_table(pa.table(plain), kinds) if plain else ()
    options: dict[str, Any] = {"optional": optional} if optional else {}
    if rows_in:
        options["rows_in"] = rows_in
    if others:
        notes["rows_in"] = f"the longest array of objects; there are others in {', '.join(others)}"
    kind = "JsonFormat" if suffix == ".json" else "JsonLinesFormat"
    return Proposal(paths[0], kind, suffix, len(objects), columns, key, notes, options)


def _objects(path: Path, suffix: str, rows_in: str) -> list[dict[str, Any]]:
    with DropFolder(str(path.parent)).local_copy(path.name) as copy:
        if suffix == ".json":
            objects = _rows(path.name, _decode(path.name, copy.read_text("utf-8-sig")), rows_in)
        else:
            objects = list(_lines(path.name, copy))
    if not objects:
        raise InvalidFileError(f"{path.name} has no rows")
    return objects


def _place_of_rows(path: Path) -> tuple[str, list[str]]:
    """Return the keys of an object below which its longest array of objects is, and those of others."""
    with DropFolder(str(path.parent)).local_copy(path.name) as copy:
        document = _decode(path.name, copy.read_text("utf-8-sig"))
    arrays = {
        ".".join(keys): len(value)
        for keys, value in _values(document)
        if _is_rows(value) and not any("." in key for key in keys)
    }
    longest = max(arrays, key=lambda keys: arrays[keys], default="")
    return longest, [keys for keys in arrays if keys != longest]


def _values(document: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the values of nested objects, each with its keys."""
    yield keys, document
    if isinstance(document, dict) and len(keys) < _MAX_DEPTH:
        for key, value in document.items():
            yield from _values(value, (*keys, key))


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _lines(name: str, file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig") as text:
        for number, line in enumerate(islice(text, MAX_ROWS), 1):
            if line.strip():
                place = f"{name}, line {number}"
                yield from _rows(place, _decode(place, f"[{line}]"))


def _decode(name: str, text: str) -> Any:
    try:
        return DECODER.decode(text)
    except ValueError as error:
        raise InvalidFileError(f"{name}: {error}") from None


def _rows(name: str, document: Any, rows_in: str = "") -> list[dict[str, Any]]:
    """Return the objects of an array, which may be below keys of an object."""
    try:
        objects: list[dict[str, Any]] = value_at(document, rows_in) if rows_in else document
    except ValueError as error:
        raise InvalidFileError(f"{name}: {error}") from None
    if not isinstance(objects, list) or not all(isinstance(row, dict) for row in objects):
        raise InvalidFileError(
            f"{name}: it is not an object, or an array of objects. Write the rows as one array of objects, "
            "or as an object in each line of a file that ends in .jsonl"
        )
    return objects[:MAX_ROWS]


def write_sample(proposal: Proposal, folder: Path, rows: int) -> None:
    """Write the first rows of a proposal's file into a folder.

    Args:
        proposal: what the file proposes.
        folder: an existing folder.
        rows: how many rows.
    """
    name = proposal.file.name
    if proposal.format_name == "ParquetFormat":
        pq.write_table(_read_parquet(proposal.file, rows).slice(0, rows), folder / name)
        return
    with (
        DropFolder(str(proposal.file.parent)).local_copy(name) as copy,
        copy.open(encoding="utf-8-sig", newline="") as text,
        open_sample(proposal, folder) as sample,
    ):
        if proposal.suffix == ".json":
            rows_in = str(proposal.options.get("rows_in", ""))
            first: Any = _rows(name, DECODER.decode(text.read()), rows_in)[:rows]
            for key in reversed(list(filter(None, rows_in.split(".")))):
                first = {key: first}
            sample.write(dump_json(first))
        else:
            sample.writelines(islice(text, rows))


def json_type(values: Sequence[Any]) -> tuple[TColumnSchema, str]:
    """Return the type that all values of a JSON key have, and what a person should check."""
    kinds = {type(value) for value in values}
    if not kinds:
        return {"data_type": "text"}, "has no value in the sample"
    if kinds == {bool}:
        return {"data_type": "bool"}, ""
    if kinds == {int} and all(-_INTEGER_LIMIT <= value < _INTEGER_LIMIT for value in values):
        return {"data_type": "bigint"}, ""
    if kinds <= {int, Decimal}:
        return _number_type([Decimal(value) for value in values])
    if kinds == {str}:
        return _text_type(values)
    mixed = kinds & {str, bool, int, Decimal}
    return {"data_type": "json"}, "has values of several types" if mixed else ""


def _number_type(values: Sequence[Decimal]) -> tuple[TColumnSchema, str]:
    """Return double, or for numbers that a double would round a decimal."""
    parts = [value.as_tuple() for value in values]
    scale = max(0, *(-int(part.exponent) for part in parts))
    whole = max(len(part.digits) + int(part.exponent) for part in parts)
    if max(len(part.digits) for part in parts) <= _DIGITS_OF_DOUBLE or whole + scale > _MAX_DIGITS:
        return {"data_type": "double"}, ""
    hints: TColumnSchema = {"data_type": "decimal", "precision": _MAX_DIGITS, "scale": scale}
    return hints, "has more digits than a double"


def _text_type(values: Sequence[str]) -> tuple[TColumnSchema, str]:
    if _all_parse(date.fromisoformat, values) and all(
        len(value) == len("2025-03-10") for value in values
    ):
        return {"data_type": "date"}, ""
    if _all_parse(datetime.fromisoformat, values) and all("T" in value for value in values):
        zones = {datetime.fromisoformat(value).tzinfo is not None for value in values}
        if zones == {True}:
            return {"data_type": "timestamp"}, ""
        if zones == {False}:
            return {
                "data_type": "timestamp",
                "timezone": False,
            }, "without a time zone: a local time"
    return {"data_type": "text"}, ""


def _all_parse(parse: Callable[[str], object], values: Iterable[str]) -> bool:
    try:
        for value in values:
            parse(value)
    except ValueError:
        return False
    return True
