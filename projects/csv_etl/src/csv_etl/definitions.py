"""The code location `csv_etl`."""

from csv_etl import assets, automation
from shared.orchestration.definitions import build_definitions

defs = build_definitions("csv_etl", assets, automation)
