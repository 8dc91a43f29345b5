"""The raw files of each source: found in a folder or downloaded, then read."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recalign.config import AmazonSource, InteractionsConfig
from recalign.errors import BadInputError
from recalign.interactions.amazon import read_amazon
from recalign.interactions.fetch import fetch
from recalign.interactions.movielens import read_movielens
from recalign.interactions.ownfiles import read_own_files
from recalign.interactions.rawtables import RawTables
from recalign.progress import Progress, silent

logger = logging.getLogger(__name__)

_MOVIELENS_TERMS = (
    "MovieLens, from GroupLens (University of Minnesota): research use, no redistribution, no "
    "commercial use without permission; cite Harper and Konstan 2015 "
    "(https://grouplens.org/datasets/movielens/)."
)
_AMAZON_TERMS = (
    "Amazon reviews, from McAuley's group (UC San Diego): research use; cite {paper} ({page})."
)


@dataclass(frozen=True)
class Published:
    """A publisher's files: where they are, under which terms, and what they are called."""

    base: str
    downloads: dict[str, str | None]
    """Path under `base` to MD5, None where the publisher gives none."""
    unpacked: list[str]
    """File names that serve as well, together, when they lie in the raw folder."""
    terms: str


def published(config: InteractionsConfig) -> Published:
    """What the chosen publisher source consists of."""
    match config.source:
        case "ml-100k":
            zipped, md5 = "ml-100k.zip", "0e33842e24a9c977be4e0107933c0723"
            names = ["u.data", "u.item"]
        case "ml-1m":
            zipped, md5 = "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"
            names = ["ratings.dat", "movies.dat"]
        case "amazon":
            return _published_amazon(config.amazon)
        case _:
            raise ValueError(f"{config.source} has no publisher")
    base = "https://files.grouplens.org/datasets/movielens"
    return Published(base, {zipped: md5}, names, _MOVIELENS_TERMS)


def _published_amazon(source: AmazonSource) -> Published:
    name = source.category
    match source.year:
        case "2014":
            base = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
            paths = [f"reviews_{name}_5.json.gz", f"meta_{name}.json.gz"]
            paper, page = "McAuley et al. 2015", "https://jmcauley.ucsd.edu/data/amazon/"
        case "2018":
            base = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2"
            paths = [f"categoryFilesSmall/{name}_5.json.gz", f"metaFiles2/meta_{name}.json.gz"]
            paper, page = "Ni et al. 2019", "https://nijianmo.github.io/amazon/"
        case "2023":
            base = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw"
            paths = [
                f"review_categories/{name}.jsonl.gz",
                f"meta_categories/meta_{name}.jsonl.gz",
            ]
            paper, page = "Hou et al. 2024", "https://amazon-reviews-2023.github.io"
    unpacked = [path.rsplit("/", 1)[-1].removesuffix(".gz") for path in paths]
    terms = _AMAZON_TERMS.format(paper=paper, page=page)
    return Published(base, dict.fromkeys(paths), unpacked, terms)


def source_files(
    config: InteractionsConfig,
    cache: Path,
    *,
    print_terms: Callable[[str], None] = logger.warning,
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
        return [cache / path.rsplit("/", 1)[-1] for path in source.downloads]
    return [
        fetch(
            f"{mirror or source.base}/{path}",
            cache / path.rsplit("/", 1)[-1],
            md5=md5,
            terms=source.terms,
            print_terms=print_terms,
            progress=progress,
        )
        for path, md5 in source.downloads.items()
    ]


def _own_files(config: InteractionsConfig) -> list[Path]:
    if not config.files.interactions:
        raise BadInputError(
            "interactions.files.interactions is empty; name your file of interactions there"
        )
    named = {"interactions": config.files.interactions, "items": config.files.items}
    files = {field: Path(name).expanduser() for field, name in named.items() if name}
    for field, path in files.items():
        if not path.is_file():
            raise BadInputError(f"{path}: no such file (interactions.files.{field})")
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
        case "ml-100k" | "ml-1m":
            return read_movielens(config.source, files, progress)
        case "amazon":
            return read_amazon(config.amazon, files, progress)
        case "files":
            return read_own_files(config.files, files, progress)
        case "synthetic":
            raise ValueError("the synthetic world is made, not read")
