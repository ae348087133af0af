"""The dbt project that `etl new` creates, for tests."""

from importlib.resources import files
from pathlib import Path

import jinja2

NAMES = {"name": "mart", "package": "mart_etl", "title": "mart"}


def write_dbt_project(folder: Path) -> Path:
    """Write the files of the dbt project into a folder, and return the folder."""
    templates = Path(str(files("shared.cli"))) / "templates" / "{{ dbt }}"
    source = templates / "src" / "{{ package }}" / "dbt"
    for file in source.rglob("*"):
        if file.is_file():
            target = folder / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text(encoding="utf-8")
            if target.suffix == ".jinja":
                target = target.with_suffix("")
                text = jinja2.Template(text, keep_trailing_newline=True).render(NAMES)
            target.write_text(text, encoding="utf-8")
    return folder
