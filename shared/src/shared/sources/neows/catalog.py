"""The catalog of all near-earth objects: an API with pages and no record of changes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import dlt
from dlt.extract import DltResource

from shared.sources.hints import REPLACE_PARTITIONS, arrow_schema
from shared.sources.neows.client import NeowsClient
from shared.sources.neows.columns import CATALOG_COLUMNS
from shared.sources.neows.rows import detail_rows, to_rows
from shared.sources.protocol import RetryLaterError


@dlt.source(name="neows")
def neows_catalog(pages: int = 50) -> DltResource:
    """Load the catalog of all near-earth objects, some pages with each run.

    The API does not report changes, so runs crawl the catalog page by page, again and again. dlt's
    state has the next page: a run after one that failed or was killed continues after the last loaded
    page.

    Args:
        pages: pages to request in a run, of 20 objects each. There are about 2,000.
    """

    @dlt.resource(columns=CATALOG_COLUMNS, **REPLACE_PARTITIONS)
    def catalog() -> Iterator[Any]:
        """All near-earth objects that NASA knows, with their orbits, one row each.

        Each run requests the next pages of a crawl; after the last page a new crawl starts.

        Yields an Arrow table with `CATALOG_COLUMNS` for each page. If the request limit is reached after
        the first page, the earlier pages are loaded.

        Raises:
            NeowsError: a response is not a page, or a value has another type.
            RetryLaterError: the request limit is reached at the first page.
        """
        yield arrow_schema(CATALOG_COLUMNS).empty_table()
        state = dlt.current.resource_state()
        first, crawl = state.get("next_page", 0), state.get("crawl_number", 1)
        client = NeowsClient(dlt.current.resource_metrics())
        convert = partial(detail_rows, columns=CATALOG_COLUMNS, crawl_number=crawl)
        for page in range(first, first + pages):
            try:
                items, total_pages = client.browse(page)
            except RetryLaterError:
                if page == first:
                    raise
                return
            yield to_rows([(f"page {page}", item) for item in items], convert)
            state["next_page"] = page + 1
            if page + 1 >= total_pages:
                state |= {"next_page": 0, "crawl_number": crawl + 1}
                return

    return catalog
