"""The raw files of each source: found in a folder or downloaded, then read."""

from pathlib import Path

from recalign.config import InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.fetch import Download, UnknownChecksum, fetch, md5_beside
from recalign.interactions.ownfiles import read_own_files
from recalign.interactions.publishers import Published, published
from recalign.interactions.rawtables import RawTables
from recalign.progress import Progress, silent


def source_files(
    config: InteractionsConfig,
    cache: Path,
    *,
    progress: Progress = silent,
    mirror: str = "",
    download: bool = True,
) -> list[Path]:
    """The raw files that `read_source` will read, downloaded into `cache` unless raw_folder is set.

    `mirror` replaces the publisher's base address. Without `download` files that are not in the
    cache yet are only named. Empty for the synthetic world.
    Raises BadInputError when files are missing, and what `fetch` raises.
    """
    if config.source == "synthetic":
        return []
    if config.source == "files":
        return _own_files(config)
    source = published(config)
    if config.raw_folder:
        return _files_in(Path(config.raw_folder).expanduser(), source)
    if not download:
        return [source.target(path, cache) for path in source.downloads]
    return _download(source, mirror or source.base, cache, config.sha256, progress)


def _download(
    source: Published, base: str, cache: Path, sha256: list[str], progress: Progress
) -> list[Path]:
    """All files of `source`; those without a known checksum are named together, at the end."""
    files, unknown = [], []
    for path, md5 in source.downloads.items():
        url, target = f"{base}/{path}", source.target(path, cache)
        if source.md5_beside:
            md5 = md5_beside(url, target)
        try:
            file = Download(url, target, source.terms, md5, sha256)
            files.append(fetch(file, progress))
        except UnknownChecksum as refused:
            unknown.append(refused)
    if unknown:
        found = ", ".join(f"{refused.name} has {refused.sha256}" for refused in unknown)
        digests = [*sha256, *(refused.sha256 for refused in unknown)]
        stated = ", ".join(f'"{digest}"' for digest in digests)
        raise BadInputError(
            f"{base}: the publisher gives no checksums, and interactions.sha256 states no SHA-256 "
            f"of what was downloaded: {found}; compare with a copy that you trust, then set "
            f"interactions.sha256=[{stated}] and run again (nothing is downloaded twice)"
        )
    return files


def _own_files(config: InteractionsConfig) -> list[Path]:
    if not config.files.interactions:
        raise BadInputError(
            "interactions.files.interactions is empty; name your file of interactions there"
        )
    if config.files.attribute_columns and not config.files.items:
        raise BadInputError(
            "interactions.files.attribute_columns are columns of the items file: name that file in"
            " interactions.files.items"
        )
    named = {"interactions": config.files.interactions, "items": config.files.items}
    files = {field: Path(name).expanduser() for field, name in named.items() if name}
    for field, path in files.items():
        if not path.is_file():
            wrong = "is a folder, not a file" if path.is_dir() else "no such file"
            raise BadInputError(f"{path}: {wrong} (interactions.files.{field})")
    return list(files.values())


def _files_in(folder: Path, source: Published) -> list[Path]:
    """Unpacked files, or the downloads as they are, in `folder` or one of its subfolders."""
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such folder (interactions.raw_folder)")
    downloads = [path.rsplit("/", 1)[-1] for path in source.downloads]
    places = [folder, *sorted(place for place in folder.iterdir() if place.is_dir())]
    for place in places:
        for names in (source.unpacked, downloads):
            files = [place / name for name in names]
            if all(file.is_file() for file in files):
                return files
    raise BadInputError(
        f"{folder}: holds neither {' and '.join(downloads)} nor {' and '.join(source.unpacked)}, "
        "nor do its subfolders; fetch them from "
        f"{source.base}, or leave interactions.raw_folder empty to have them downloaded"
    )


def read_source(
    config: InteractionsConfig, files: list[Path], progress: Progress = silent
) -> RawTables:
    """Every row of the files that `source_files` gave; a bad one raises BadInputError."""
    match config.source:
        case "synthetic":
            raise ValueError("the synthetic world is made, not read")
        case "files":
            return read_own_files(config.files, files, progress)
        case _:
            return published(config).read(files, progress)
