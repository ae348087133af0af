"""DuckDB alone: the feeds' objects, as they are nested, into a table."""

import json
import sys
import time
from pathlib import Path

import duckdb

feeds, folder = sys.argv[1:]
with duckdb.connect(str(Path(folder) / "warehouse.duckdb")) as connection:
    connection.execute("CREATE SCHEMA bench")
    began = time.perf_counter()
    connection.execute(
        """
        CREATE TABLE bench.items AS
        SELECT '1234567890.123456' AS _dlt_load_id, unnest(near_earth_objects)
        FROM (
            SELECT unnest(flatten(map_values(near_earth_objects))) AS near_earth_objects
            FROM read_json(?, columns = {near_earth_objects: 'MAP(VARCHAR, STRUCT(
                neo_reference_id VARCHAR, id VARCHAR, name VARCHAR, nasa_jpl_url VARCHAR,
                absolute_magnitude_h DOUBLE,
                estimated_diameter STRUCT(
                    kilometers STRUCT(estimated_diameter_min DOUBLE, estimated_diameter_max DOUBLE),
                    meters STRUCT(estimated_diameter_min DOUBLE, estimated_diameter_max DOUBLE),
                    miles STRUCT(estimated_diameter_min DOUBLE, estimated_diameter_max DOUBLE),
                    feet STRUCT(estimated_diameter_min DOUBLE, estimated_diameter_max DOUBLE)),
                is_potentially_hazardous_asteroid BOOLEAN, is_sentry_object BOOLEAN,
                close_approach_data STRUCT(close_approach_date DATE,
                    epoch_date_close_approach BIGINT,
                    relative_velocity STRUCT(kilometers_per_second DOUBLE,
                        kilometers_per_hour DOUBLE, miles_per_hour DOUBLE),
                    miss_distance STRUCT(astronomical DOUBLE, lunar DOUBLE, kilometers DOUBLE,
                        miles DOUBLE),
                    orbiting_body VARCHAR)[])[])'})
        )
        """,
        [f"{feeds}/*.json"],
    )
print(json.dumps({"seconds": time.perf_counter() - began}))
