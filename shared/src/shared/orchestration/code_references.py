"""Links from an asset to the code that loads it, and to its project's README."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import dagster as dg

from shared import settings


def with_code_references(assets: Iterable[Any]) -> list[Any]:
    """Return a location's assets with links to their code and to their project's README.

    The links are URLs in the repository if `REPOSITORY_URL` is set, otherwise local files.
    """
    return [_with_links(asset) for asset in dg.with_source_code_references(list(assets))]


def _with_links(asset: Any) -> Any:
    def add_links(spec: dg.AssetSpec) -> dg.AssetSpec:
        # What an asset states itself, such as its .sql file, comes before the function that makes it.
        reference = spec.metadata["dagster/code_references"].value.code_references[0]
        files = [reference, *_readme(Path(reference.file_path))]
        links = dg.CodeReferencesMetadataValue(code_references=[_reference(file) for file in files])
        return spec.merge_attributes(metadata={"dagster/code_references": links})

    return asset.map_asset_specs(add_links) if isinstance(asset, dg.AssetsDefinition) else asset


def _readme(source: Path) -> Iterable[dg.LocalFileCodeReference]:
    root = settings.workspace_root()
    for folder in source.parents:
        if folder == root:
            return
        if (folder / "README.md").is_file():
            readme = str(folder / "README.md")
            yield dg.LocalFileCodeReference(file_path=readme, line_number=1, label="README.md")
            return


def _reference(
    file: dg.LocalFileCodeReference,
) -> dg.LocalFileCodeReference | dg.UrlCodeReference:
    repository, root = settings.get("REPOSITORY_URL"), settings.workspace_root()
    path = Path(file.file_path)
    if not repository or not path.is_relative_to(root):
        return file
    line = f"#L{file.line_number}" if file.label is None else ""
    url = f"{repository.rstrip('/')}/{path.relative_to(root).as_posix()}{line}"
    return dg.UrlCodeReference(url=url, label=file.label)
