# ruff: noqa: INP001 - hooks of mkdocs.yml
"""What the web page needs beyond docs/: README and its like, the commands of `etl`, links to the code.

The documents are written for the repository, where a link such as `../shared/src` works. On the web page it
leads to a page of the site, or to the file at REPOSITORY_URL; without that setting it is plain text. A link to
a file that does not exist fails the build.
"""

import os
import posixpath
import re
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from shared import settings
from shared.cli import app

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    **{
        file.relative_to(ROOT).as_posix(): f"locations/{file.parent.name}.md"
        for file in ROOT.glob("projects/*/README.md")
    },
}
"""Files outside of docs/ that are pages, with their places on the site."""

COMMANDS = "reference/command-line.md"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")
_BLOCK = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the pictures that are not in docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, COMMANDS, content=_commands()))
    documents = [
        *PAGES,
        *(f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")),
    ]
    for document in documents:
        if not (ROOT / document).is_file():
            continue
        for picture, _, target, _ in _LINK.findall((ROOT / document).read_text()):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(document), target))
            if picture and not path.startswith("docs/") and not files.get_file_from_path(path):
                content = (ROOT / path).read_bytes()
                files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page's text with links that work on the site."""
    del config
    place = page.file.src_uri
    source = next((file for file, at in PAGES.items() if at == place), f"docs/{place}")

    def on_site(link: re.Match[str]) -> str:
        picture, text, target, anchor = link.groups(default="")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        at = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(at):
            relative = posixpath.relpath(at, posixpath.dirname(place) or ".")
            return f"{picture}[{text}]({relative}{anchor})"
        if not (ROOT / path).exists():
            return link[0]  # mkdocs reports it
        if url := settings.get("REPOSITORY_URL"):
            return f"[{text}]({url.rstrip('/')}/{path})"
        return text

    blocks = _BLOCK.split(markdown)
    return "".join(
        block if block.startswith("```") else _LINK.sub(on_site, block) for block in blocks
    )


def _commands() -> str:
    os.environ["COLUMNS"] = "100"
    command = typer.main.get_command(app)
    for subcommand in getattr(
        command, "commands", {}
    ).values():  # otherwise it is cut after 45 characters
        subcommand.short_help = " ".join((subcommand.help or "").partition("\n\n")[0].split())
    context = typer.Context(command, info_name="etl")
    text = get_docs_for_click(obj=command, ctx=context, name="etl", title="Commands of etl")
    return text.replace(
        "# Commands of etl\n",
        "# Commands of etl\n\nAfter reading this page you know every command and option of `etl`. It is written "
        "from the command itself; [Use the command line](../command-line.md) has examples.\n",
        1,
    )
