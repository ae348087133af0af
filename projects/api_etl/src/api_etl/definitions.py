"""The code location `api_etl`."""

from api_etl import assets, automation, checks
from shared.orchestration.definitions import build_definitions

defs = build_definitions("api_etl", assets, automation, checks)
