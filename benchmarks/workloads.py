"""What is measured: the workloads, and the systems that run each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench_data import ITEMS_OPTIONS, database, feeds, items


@dataclass(frozen=True)
class System:
    """One way to load: its script, further arguments, and the maximum number of runs."""

    script: str
    arguments: tuple[str, ...] = ()
    max_runs: int = 99


LIMIT, OURS = System("limit.py"), System("ours.py")
OURS_DAGSTER = System("ours.py", ("dagster",))
LIMIT_IMPORTS = System("imports.py")
SLOW = {
    "dlt_filesystem": System("dlt_filesystem.py"),
    "ingestr": System("ingestr.py", max_runs=1),
    "singer": System("singer.py", max_runs=1),
    "course": System("course.py", max_runs=1),
}


@dataclass(frozen=True)
class Workload:
    """What is loaded, its size, and the systems; `with_imports` measures the whole process."""

    kind: str
    size: int
    systems: Mapping[str, System]
    with_imports: bool = False
    max_runs: int = 99

    def data(self) -> str:
        """Return the input of the systems: a file, a folder or a number; create it if it is missing."""
        if self.kind in ITEMS_OPTIONS:
            return str(items(self.size, self.kind))
        if self.kind == "neows":
            return str(feeds(self.size))
        if self.kind == "database":
            return database(self.size)
        return str(self.size)


def database_systems(kind: str) -> dict[str, System]:
    """Return the systems that copy a table of Postgres into a warehouse of a kind."""
    ours, plain = "ours_database.py", "dlt_database.py"
    systems = {
        "limit": System("limit_database.py", (kind,)),
        "ours": System(ours, (kind,)),
        "ours_incremental": System(ours, (kind, "incremental")),
        "dlt_sqlalchemy": System(plain, (kind, "sqlalchemy"), max_runs=2),
        "dlt_pyarrow": System(plain, (kind, "pyarrow"), max_runs=2),
        "dlt_connectorx": System(plain, (kind, "connectorx"), max_runs=2),
    }
    return systems | ({"sling": System("sling_database.py", (kind,))} if kind == "postgres" else {})


def large_systems(kind: str) -> dict[str, System]:
    """Return those of `database_systems` of which the memory for a large table is of interest."""
    return {name: system for name, system in database_systems(kind).items() if "dlt" not in name}


def partitions(many: int) -> Workload:
    """Return the workload of a run with some daily partitions."""
    systems = {
        "limit": System("limit_partitions.py"),
        "dagster": System("dagster_partitions.py", max_runs=1),
        "ours": System("ours_partitions.py"),
    }
    return Workload("number", many, systems, max_runs=3)


def tables(many: int) -> Workload:
    """Return the workload of a location with some tables."""
    ours = "ours_tables.py"
    systems = {"limit": System(ours, ("dagster",)), "ours": System(ours)}
    return Workload("number", many, systems, max_runs=3)


def locations(many: int) -> Workload:
    """Return the workload of a workspace with some code locations."""
    ours = "ours_locations.py"
    systems = {
        "limit": System(ours, ("empty",)),
        "ours": System(ours),
        "ours_preloaded": System(ours, ("preloaded",)),
    }
    return Workload("number", many, systems, max_runs=1)


WORKLOADS = {
    "csv_replace_1m": Workload(
        "csv",
        1_000_000,
        {"limit": LIMIT, "ours": OURS, "ours_dagster": OURS_DAGSTER} | SLOW,
    ),
    "csv_replace_3m": Workload("csv", 3_000_000, {"limit": LIMIT, "ours": OURS}, max_runs=3),
    "csv_replace_10m": Workload(
        "csv",
        10_000_000,
        {
            "limit": LIMIT,
            "ours": OURS,
            "ours_dagster": OURS_DAGSTER,
            "ours_changed": System("ours.py", ("changed",), max_runs=3),
            "ours_unchanged": System("ours.py", ("unchanged",), max_runs=3),
            "dlt_filesystem": System("dlt_filesystem.py", max_runs=1),
        },
    ),
    "csv_replace_30m": Workload("csv", 30_000_000, {"limit": LIMIT, "ours": OURS}, max_runs=1),
    "csv_bucket_1m": Workload(
        "csv",
        1_000_000,
        {"limit": LIMIT, "ours": OURS, "ours_bucket": System("ours.py", ("bucket",))},
        max_runs=3,
    ),
    "csv_postgres_1m": Workload(
        "csv",
        1_000_000,
        {
            "limit": System("limit_postgres.py"),
            "ours": System("ours.py", ("postgres",)),
            "dlt_postgres": System("dlt_postgres.py", max_runs=1),
        },
    ),
    **{
        f"{kind}_replace_{millions}m": Workload(
            kind, millions * 1_000_000, {"limit": LIMIT, "ours": OURS}
        )
        for kind, millions in (("jsonl", 1), ("jsonl", 5), ("parquet", 1), ("parquet", 10))
    },
    "writers_8": Workload(
        "number",
        8,
        {
            "ours": System("ours_writers.py"),
            "ours_postgres": System("ours_writers.py", ("postgres",)),
        },
        max_runs=3,
    ),
    "neows_100k": Workload(
        "neows",
        100_000,
        {
            "limit": System("limit_neows.py"),
            "ours": System("ours_neows.py"),
            "course": System("course_neows.py", max_runs=1),
        },
    ),
    "tiny_run": Workload(
        "csv",
        2,
        {
            "limit": LIMIT_IMPORTS,
            "plain_dlt": System("plain.py"),
            "dagster": System("dagster_run.py"),
            "plain_dagster": System("plain.py", ("dagster",)),
            "ours": OURS,
            "ours_dagster": OURS_DAGSTER,
        },
        with_imports=True,
    ),
    "import_location": Workload(
        "number",
        1,
        {"limit": LIMIT_IMPORTS, "ours": System("ours_import.py")},
        with_imports=True,
    ),
    "start_of_a_run": Workload(
        "number",
        3,
        {"limit": System("limit_start.py"), "ours": System("ours_start.py")},
        with_imports=True,
    ),
    "unique_check_20m": Workload(
        "number",
        20_000_000,
        {
            "limit": System("limit_unique_check.py"),
            "ours": System("ours_unique_check.py"),
            "ours_key": System("ours_unique_check.py", ("key",)),
            "ours_whole": System("ours_unique_check.py", ("whole",)),
        },
        max_runs=3,
    ),
    "parallel_partitions_24": Workload(
        "number", 24, {"ours": System("ours_parallel_partitions.py")}
    ),
    **{f"partitions_{many}": partitions(many) for many in (1, 30, 365, 3650)},
    **{f"tables_{many}": tables(many) for many in (20, 200, 2000)},
    **{f"locations_{many}": locations(many) for many in (3, 10, 30)},
}


for kind in ("duckdb", "postgres"):
    nothing_new = {"ours": System("ours_database.py", (kind, "nothing_new"))}
    WORKLOADS |= {
        f"postgres_{kind}_2m": Workload("database", 2_000_000, database_systems(kind)),
        f"postgres_{kind}_20m": Workload("database", 20_000_000, large_systems(kind), max_runs=1),
        f"postgres_{kind}_nothing_new": Workload("database", 2_000_000, nothing_new),
    }
BY_REQUEST = {
    "csv_replace_100m": Workload("csv", 100_000_000, {"limit": LIMIT, "ours": OURS}, max_runs=1),
    "locations_100": locations(100),
}
