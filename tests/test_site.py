"""The web page of the documents has every page, works without other servers, and shows the real interface."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags are MkDocs' own."""


_Loader.add_constructor("!ENV", lambda _loader, _node: None)


@pytest.fixture
def config(root: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.load((root / "mkdocs.yml").read_text(), Loader=_Loader)
    return content


def pages(nav: Any) -> list[str]:
    """Return the files of a navigation, in order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages(part)]


def test_every_page_is_in_the_navigation(root: Path, config: dict[str, Any]) -> None:
    listed = pages(config["nav"])
    assert len(listed) == len(set(listed))
    docs = {file.relative_to(root / "docs").as_posix() for file in root.glob("docs/**/*.md")}
    missing = sorted(docs - set(listed))
    assert not missing, f"add each of {missing} to its topic under `nav` in mkdocs.yml"
    locations = {f"locations/{file.parent.name}.md" for file in root.glob("projects/*/README.md")}
    missing = sorted(locations - set(listed))
    assert not missing, f"add each of {missing} under `nav: Start` in mkdocs.yml"


def build(root: Path, site: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_site_is_built_with_strict_links(root: Path, tmp_path: Path) -> None:
    url = "https://code.example.com/team/etl/tree/main"
    done = build(root, tmp_path, REPOSITORY_URL=url)
    assert done.returncode == 0, done.stdout + done.stderr
    front = (tmp_path / "index.html").read_text()
    assert 'href="add-a-pipeline/"' in front
    assert 'href="locations/csv_etl/"' in front
    assert f'href="{url}/workspace.yaml"' in front
    assert (tmp_path / "benchmarks" / "results" / "latest.svg").is_file()
    architecture = (tmp_path / "architecture" / "index.html").read_text()
    assert f'href="{url}/shared/src/shared/orchestration/resource.py"' in architecture

    def reference(page: str) -> str:
        return (tmp_path / "reference" / page / "index.html").read_text()

    assert 'id="shared.orchestration.resource.WarehouseDltResource.run"' in reference(
        "orchestration"
    )
    assert "the share of its rows that a table must keep" in reference("orchestration")
    for name in ("load", "plan_load", "query.query", "pipeline.pipeline", "LoadResult"):
        assert f'id="shared.warehouse.{name}"' in reference("warehouse")
    assert 'id="shared.sources.csv.csv_source"' in reference("sources")
    for option in ("etl run", "--partition", "etl migrate", "Diagnose the workspace"):
        assert option in reference("command-line")

    loaded = re.compile(
        r'<(?:script|img|iframe|source)[^>]* src="(https?:[^"]*)|<link[^>]*rel="'
        r'(?:stylesheet|preconnect|icon)"[^>]* href="(https?:[^"]*)'
    )
    for page in tmp_path.rglob("*.html"):
        assert loaded.findall(page.read_text()) == [], (
            page
        )  # a reader's browser calls no other server


@pytest.mark.slow
def test_a_link_to_nothing_fails_the_build(clone: Path, tmp_path: Path) -> None:
    page = clone / "docs" / "speed.md"
    page.write_text(page.read_text() + "\n[gone](../shared/src/gone.py) [also](gone.md)\n")
    done = build(clone, tmp_path / "site")
    assert done.returncode != 0
    assert "../shared/src/gone.py" in done.stdout + done.stderr
    assert "gone.md" in done.stdout + done.stderr
