"""The code location `simple_etl`."""

from shared.orchestration.definitions import build_definitions
from simple_etl import assets

defs = build_definitions("simple_etl", assets)
