"""Last.fm of HetRec 2011 (Cantador et al.): taggings of artists with their times, and plays."""

from pathlib import Path

import polars as pl

from recalign.errors import BadInputError
from recalign.interactions.catalogue import Description, item_table
from recalign.interactions.columns import typed_interactions
from recalign.interactions.rawlines import read_bytes
from recalign.interactions.rawtables import Origin, RawTables
from recalign.interactions.titles import clean
from recalign.progress import Progress

TAGGINGS = "user_taggedartists-timestamps.dat"
PLAYS = "user_artists.dat"
ARTISTS = "artists.dat"


def read_lastfm(files: list[Path], progress: Progress) -> RawTables:
    """Taggings as interactions, the user's plays of the artist as rating (null: not listed).

    From one zip, or TAGGINGS, PLAYS and ARTISTS. Only taggings have a time, most of them that of a
    month: ties keep the file's order. PLAYS lists at most 50 artists a user, without times: what
    was played and never tagged is counted, not kept. Tags are no attributes: they would give
    away the very taggings to be predicted. Raises BadInputError for damaged files and lines.
    """
    paths = files * 3 if len(files) == 1 else files
    names = (TAGGINGS, PLAYS, ARTISTS)
    contents = []
    for done, (path, name) in enumerate(zip(paths, names, strict=True)):
        progress(done, len(names), name)
        contents.append(read_bytes(path, name))
    progress(len(names), len(names), ARTISTS)
    taggings = _columns(paths[0], contents[0], ["userID", "artistID", "timestamp"])
    plays = _columns(paths[1], contents[1], ["userID", "artistID", "weight"])
    tagged = _interactions(paths[0], taggings, {"timestamp": "timestamp"}).drop("rating")
    played = _interactions(paths[1], plays, {"rating": "weight"})
    pair = ["user_id", "item_id"]
    weights = played.select(*pair, "rating").unique(pair, keep="first", maintain_order=True)
    joined = tagged.join(weights, on=pair, how="left", maintain_order="left")
    untagged = weights.join(tagged, on=pair, how="anti").height
    artists = _artists(paths[2], contents[2])
    return RawTables(joined, artists, noted={"plays_never_tagged": untagged})


def _columns(path: Path, content: bytes, names: list[str]) -> pl.DataFrame:
    """The named columns as text, with `row`."""
    try:
        table = pl.read_csv(
            content,
            separator="\t",
            quote_char=None,
            infer_schema=False,
            row_index_name="row",
            row_index_offset=2,
        )
    except (pl.exceptions.PolarsError, OSError) as problem:
        raise BadInputError(f"{path}: is not as published: {problem}") from problem
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise BadInputError(f"{path}: has no column {', '.join(missing)}; fetch the file again")
    return table.select("row", *names)


def _interactions(path: Path, cells: pl.DataFrame, extra: dict[str, str]) -> pl.DataFrame:
    fields = {"user_id": "userID", "item_id": "artistID"} | extra
    named = cells.select("row", *(pl.col(field).alias(name) for name, field in fields.items()))
    return typed_interactions(named, Origin(path, fields))


def _artists(path: Path, content: bytes) -> pl.DataFrame:
    """Names of the artists; a line needs only its id and name."""
    described: dict[str, Description] = {}
    lines = content.decode(errors="replace").split("\n")
    if lines[0].rstrip("\r").split("\t")[:2] != ["id", "name"]:
        raise BadInputError(f"{path}, row 1: does not start with id and name; fetch the file again")
    for row, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if line.strip() and len(fields) < 2:
            raise BadInputError(f"{path}, row {row}: has no name; fetch the file again")
        if line.strip():
            described.setdefault(fields[0].strip(), (clean(fields[1]) or None, []))
    return item_table(described)
