"""The UI in a browser, as a user of a fresh clone sees it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from shared.cli.locations import code_locations
from support.processes import python
from support.servers import DagsterDev, Webserver

pytestmark = pytest.mark.slow  # needs a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"wide": (1400, 1000), "narrow": (800, 1000)}
WAIT = 120_000
"""The timeout in milliseconds for what a page shows; the machine may be busy."""

RUNS = "{ runsOrError { ... on Runs { results { status } } } }"
MATERIALIZATIONS = """{ assetsOrError { ... on AssetConnection { nodes {
    key { path } assetMaterializations(limit: 1) { runId } } } } }"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Chromium: installed on the machine, or by `playwright install chromium`."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=program)
        except Error as error:
            if "Executable doesn't exist" not in str(error):
                raise
            pytest.skip("no browser was found: uv run playwright install --with-deps chromium")
        yield opened
        opened.close()


class Visit:
    """A page in the browser; records its errors and its requests to other servers."""

    def __init__(self, page: Page, server: Webserver, pictures: Path) -> None:
        self.page, self.pictures = page, pictures
        self.address = f"http://127.0.0.1:{server.port}"
        self.errors: list[str] = []
        page.set_default_timeout(WAIT)
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and not url.startswith(self.address):
            self.errors.append(f"requested {url}")

    def open(self, path: str) -> None:
        self.page.goto(f"{self.address}{path}")

    def shows(self, *texts: str) -> None:
        for text in texts:
            expect(self.page.get_by_text(text, exact=True).first).to_be_visible(timeout=WAIT)

    def photograph(self, name: str) -> None:
        """Save pictures in light and dark, wide and narrow."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            for size, (width, height) in SIZES.items():
                self.page.set_viewport_size({"width": width, "height": height})
                self.page.screenshot(path=self.pictures / f"{name}-{scheme}-{size}.png")
        self.page.emulate_media(color_scheme="light")
        width, height = SIZES["wide"]
        self.page.set_viewport_size({"width": width, "height": height})


def test_a_user_sees_three_locations_materializes_an_asset_and_reads_the_result(
    clone: Path, shell: dict[str, str], browser: Browser, pictures: Path
) -> None:
    run = [python(), "-m", "shared.cli", "run"]
    subprocess.run(run, cwd=clone, env=shell, check=True, capture_output=True)
    with DagsterDev(clone, shell, clone / "dev.log") as server:
        assert server.loaded_locations() == set(code_locations())
        visit = Visit(browser.new_page(), server, pictures)
        page = visit.page

        visit.open("/locations")
        expect(page.get_by_text("Loaded", exact=True)).to_have_count(3, timeout=WAIT)
        visit.photograph("locations")

        visit.open("/assets/simple/load_dict")
        visit.shows("Two people with number and name: the smallest example of a pipeline.")
        before = len(_statuses(server))  # `etl run` stored its runs
        page.get_by_role("button").filter(has_text="Materialize").first.click()
        server.wait_for(
            lambda: len(_statuses(server)) > before and _statuses(server)[0] == "SUCCESS"
        )
        page.reload()
        visit.shows(
            "Row count", "The person's number.", "README.md", "rows_loaded", "duration_seconds"
        )
        visit.shows("2 rows; 2 runs, at most 2", "Alice", "Bob", "full table", "dlt_load_id")
        chart = page.get_by_alt_text("rows of 2 runs, at most 2")
        assert chart.evaluate("image => image.naturalWidth") > 0
        visit.photograph("asset")
        page.get_by_alt_text("rows of 2 runs, at most 2").scroll_into_view_if_needed()
        visit.photograph("metadata")

        visit.open("/assets/nasa_neo/daily_summary?view=events")
        visit.shows("chart_file", "close_approach_date 2025-03-10 to 2025-03-17, 8 of them")
        visit.photograph("partitions")

        # The message of a failure comes before the traceback.
        failed = server.api.launch(
            "csv_etl",
            ["csv_data", "import_file"],
            ["csv_data", "share_prices"],
            run_config={"ops": {"import_file": {"config": {"path": "gone.csv"}}}},
        )
        server.wait_for(lambda: _statuses(server)[0] == "FAILURE")
        visit.open(f"/runs/{failed}")
        message = f"'gone.csv' is not in the drop folder {clone / 'data' / 'drop'}"
        failure = page.get_by_text(f"InvalidFileError: {message}").last
        expect(failure).to_be_visible(timeout=WAIT)
        visit.photograph("failure")
        assert visit.errors == []

    with DagsterDev(clone, shell, clone / "dev.log") as server:
        nodes = server.wait_for(
            lambda: server.api.query(MATERIALIZATIONS)["assetsOrError"]["nodes"]
        )
        materialized = {
            "/".join(node["key"]["path"]) for node in nodes if node["assetMaterializations"]
        }
        assert len(materialized) >= 10
        assert "nasa_neo/daily_summary" in materialized


def _statuses(server: Webserver) -> list[str]:
    return [run["status"] for run in server.api.query(RUNS)["runsOrError"]["results"]]
