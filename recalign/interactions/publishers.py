"""The publishers' files of each source: where they are, under which terms, and who reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import assert_never

from recalign.config import AmazonSource, GoodreadsSource, InteractionsConfig
from recalign.config.interactions import MovieLens
from recalign.interactions.amazon import read_amazon
from recalign.interactions.goodreads import read_goodreads
from recalign.interactions.lastfm import ARTISTS, PLAYS, TAGGINGS, read_lastfm
from recalign.interactions.movielens import edition, read_movielens
from recalign.interactions.rawtables import RawTables
from recalign.interactions.steam import read_steam
from recalign.progress import Progress

ReadFiles = Callable[[list[Path], Progress], RawTables]

MD5_OF_MOVIELENS = {  # of <edition>.zip, as in GroupLens' <edition>.zip.md5
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
}
_MOVIELENS_TERMS = (
    "MovieLens, from GroupLens (University of Minnesota): research use, no redistribution, no "
    "commercial use without permission; cite Harper and Konstan 2015 "
    "(https://grouplens.org/datasets/movielens/)."
)
_CHANGING = " This edition changes over time: not for results that others should reproduce."
_AMAZON_TERMS = (
    "Amazon reviews, from McAuley's group (UC San Diego): research use; cite {paper} ({page})."
)
_STEAM_TERMS = (
    "Steam reviews, from McAuley's group (UC San Diego): research use; cite Kang and McAuley 2018, "
    "Wan and McAuley 2018 and Pathak et al. 2017 "
    "(https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data)."
)
_GOODREADS_TERMS = (
    "Goodreads, from McAuley's group (UC San Diego): academic use only, no redistribution, no "
    "commercial use; cite Wan and McAuley 2018 and Wan et al. 2019 "
    "(https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html)."
)
_LASTFM_TERMS = (
    "Last.fm of HetRec 2011, from the Universidad Autonoma de Madrid through GroupLens: "
    "non-commercial use; cite Cantador, Brusilovsky and Kuflik 2011 and name Last.fm "
    "(https://grouplens.org/datasets/hetrec-2011/)."
)


@dataclass(frozen=True)
class Published:
    """A publisher's files: where they are, under which terms, and what they are called."""

    base: str
    downloads: dict[str, str | None]
    """Path under `base` to MD5, None where it is not known beforehand."""
    unpacked: list[str]
    """File names that serve as well, together, when they lie in the raw folder."""
    terms: str
    read: ReadFiles
    """Every row of the files, named in the order of `downloads` or of `unpacked`."""
    md5_beside: bool = False
    """The publisher keeps the MD5 of a file that changes in <path>.md5."""
    folder: str = ""
    """Of the downloads: other editions have files of the same names."""

    def target(self, path: str, cache: Path) -> Path:
        """Where the download of `path` lies."""
        return cache / self.folder / path.rsplit("/", 1)[-1]


def published(config: InteractionsConfig) -> Published:
    """What the chosen publisher source consists of; files in the order their reader takes them.

    A source that is missing here is a type error.
    """
    match config.source:
        case "synthetic" | "files":
            raise ValueError(f"{config.source} has no publisher")
        case "amazon":
            return _amazon(config.amazon)
        case "steam":
            base = "https://mcauleylab.ucsd.edu/public_datasets/data/steam"
            paths = ["steam_reviews.json.gz", "steam_games.json.gz"]
            return _gzipped(base, paths, _STEAM_TERMS, read_steam)
        case "goodreads":
            return _goodreads(config.goodreads)
        case "lastfm":
            base = "https://files.grouplens.org/datasets/hetrec2011"
            zipped: dict[str, str | None] = {"hetrec2011-lastfm-2k.zip": None}
            return Published(base, zipped, [TAGGINGS, PLAYS, ARTISTS], _LASTFM_TERMS, read_lastfm)
        case "ml-100k" | "ml-1m" | "ml-10m" | "ml-20m" | "ml-25m" | "ml-32m":
            return _movielens(config.source)
        case "ml-latest" | "ml-latest-small":
            return _movielens(config.source)
        case unknown:
            assert_never(unknown)


def _movielens(source: MovieLens) -> Published:
    form, md5 = edition(source), MD5_OF_MOVIELENS.get(source)
    return Published(
        base="https://files.grouplens.org/datasets/movielens",
        downloads={f"{source}.zip": md5},
        unpacked=[form.ratings, form.movies],
        terms=_MOVIELENS_TERMS + ("" if md5 else _CHANGING),
        read=partial(read_movielens, source),
        md5_beside=md5 is None,
    )


def _gzipped(
    base: str, paths: list[str], terms: str, read: ReadFiles, folder: str = ""
) -> Published:
    """Files whose publisher gives no checksum, and which serve unpacked as well."""
    unpacked = [path.rsplit("/", 1)[-1].removesuffix(".gz") for path in paths]
    return Published(base, dict.fromkeys(paths), unpacked, terms, read, folder=folder)


def _amazon(source: AmazonSource) -> Published:
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
            paths = [f"review_categories/{name}.jsonl.gz", f"meta_categories/meta_{name}.jsonl.gz"]
            paper, page = "Hou et al. 2024", "https://amazon-reviews-2023.github.io"
    terms = _AMAZON_TERMS.format(paper=paper, page=page)
    folder = "" if source.year == "2014" else f"amazon-{source.year}"  # where earlier runs left it
    return _gzipped(base, paths, terms, partial(read_amazon, source), folder)


def _goodreads(source: GoodreadsSource) -> Published:
    if source.genre == "all":
        paths = ["goodreads_interactions_dedup.json.gz", "goodreads_books.json.gz"]
    else:
        files = ("goodreads_interactions", "goodreads_books")
        paths = [f"byGenre/{file}_{source.genre}.json.gz" for file in files]
    paths += ["goodreads_book_authors.json.gz", "goodreads_book_genres_initial.json.gz"]
    base = "https://mcauleylab.ucsd.edu/public_datasets/gdrive/goodreads"
    return _gzipped(base, paths, _GOODREADS_TERMS, read_goodreads)
