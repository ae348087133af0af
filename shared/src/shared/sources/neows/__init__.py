"""NASA NeoWs as dlt sources: every asteroid that passes near Earth (https://api.nasa.gov).

The three ways to load an API: `neows` by windows of days, `neows_catalog` by pages,
`neows_sentry_objects` by one request for each object.
"""

from shared.sources.neows.catalog import neows_catalog
from shared.sources.neows.client import NeowsClient, NeowsError, NotFoundError
from shared.sources.neows.feed import neows, neows_summary
from shared.sources.neows.sentry import neows_sentry_objects

__all__ = [
    "NeowsClient",
    "NeowsError",
    "NotFoundError",
    "neows",
    "neows_catalog",
    "neows_sentry_objects",
    "neows_summary",
]
