"""The graph of artifacts as SVG: layered from sources to the report, each edge once."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recalign.report.content import StageRun
from recalign.report.drawing import GREY, INK, MUTED, PAPER, RULE, themed
from recalign.report.wording import duration

BOX, HEIGHT, GAP, DROP, MARGIN = 176.0, 44.0, 14.0, 34.0, 6.0
LETTERS = 25  # of a line in a box
LANE = 12.0  # width of an edge that passes a layer
SWEEPS = 12


@dataclass
class _Place:
    """A box, or a point of an edge that passes through a layer."""

    width: float
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    x: float = 0.0


def lineage_graph(stages: Sequence[StageRun]) -> str | None:
    """`<svg>` of all artifacts; None without any.

    An input that is reached through another input has no line of its own.
    """
    if not stages:
        return None
    runs = {run.manifest.fingerprint: run for run in stages}
    parents = _reduced({key: _known(run, runs) for key, run in runs.items()})
    layer = _layers(parents)
    rows, places = _with_lanes(parents, layer)
    _set_out(rows, places)
    width = max(place.x + place.width / 2 for place in places.values()) + MARGIN
    height = len(rows) * (HEIGHT + DROP) - DROP + 2 * MARGIN
    top = {name: MARGIN + n * (HEIGHT + DROP) for n, row in enumerate(rows) for name in row}
    edges = [
        _edge(places[upper], places[name], top[upper], top[name], upper not in runs)
        for name, place in places.items()
        for upper in place.above
    ]
    boxes = [_box(run, places[key].x, top[key]) for key, run in runs.items()]
    return themed(
        f'<svg class="lineage" role="img" aria-label="Graph of artifacts" '
        f'xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" '
        f'font-family="system-ui, sans-serif">{"".join(edges)}{"".join(boxes)}</svg>'
    )


def _known(run: StageRun, runs: Mapping[str, StageRun]) -> list[str]:
    """Fingerprints of the run's inputs that are on the page, each once, in order."""
    above = dict.fromkeys(one.fingerprint for one in run.manifest.inputs.values())
    return [key for key in above if key in runs]


def _reduced(parents: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Parents without those that are also ancestors of another parent."""
    ancestors: dict[str, set[str]] = {}

    def find(key: str) -> set[str]:
        if key not in ancestors:
            ancestors[key] = set(parents[key]).union(*(find(upper) for upper in parents[key]))
        return ancestors[key]

    return {
        key: [one for one in own if not any(one in find(other) for other in own)]
        for key, own in parents.items()
    }


def _layers(parents: Mapping[str, list[str]]) -> dict[str, int]:
    """Layer of each artifact: the longest way from a source."""
    layer: dict[str, int] = {}

    def find(key: str) -> int:
        if key not in layer:
            layer[key] = 1 + max((find(upper) for upper in parents[key]), default=-1)
        return layer[key]

    for key in parents:
        find(key)
    return layer


def _with_lanes(
    parents: Mapping[str, list[str]], layer: Mapping[str, int]
) -> tuple[list[list[str]], dict[str, _Place]]:
    """Rows of names by layer; an edge that passes a layer takes a lane, shared per parent."""
    rows: list[list[str]] = [[] for _ in range(max(layer.values()) + 1)]
    places: dict[str, _Place] = {}

    def add(name: str, row: int, width: float) -> None:
        if name not in places:
            places[name] = _Place(width)
            rows[row].append(name)

    for key in parents:
        add(key, layer[key], BOX)
    for key, own in parents.items():
        for upper in own:
            previous = upper
            for row in range(layer[upper] + 1, layer[key]):
                name = f"{upper} passes {row}"
                add(name, row, LANE)
                _join(places, previous, name)
                previous = name
            _join(places, previous, key)
    return rows, places


def _join(places: dict[str, _Place], upper: str, lower: str) -> None:
    if upper not in places[lower].above:
        places[lower].above.append(upper)
        places[upper].below.append(lower)


def _set_out(rows: list[list[str]], places: dict[str, _Place]) -> None:
    """x of every place: sweeps down and up draw each to the middle of its neighbours."""
    for row in rows:
        _pack(row, places)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            for name in row:
                near = places[name].above if down else places[name].below
                if near:
                    places[name].x = sum(places[other].x for other in near) / len(near)
            row.sort(key=lambda name: places[name].x)
            _spread(row, places)
    left = min(place.x - place.width / 2 for place in places.values())
    for place in places.values():
        place.x += MARGIN - left


def _pack(row: list[str], places: dict[str, _Place]) -> None:
    """One after the other, centred about 0."""
    total = sum(places[name].width + GAP for name in row) - GAP
    start = -total / 2
    for name in row:
        places[name].x = start + places[name].width / 2
        start += places[name].width + GAP


def _spread(row: list[str], places: dict[str, _Place]) -> None:
    """Push neighbours apart until none overlap: the mean of pushing right and pushing left."""
    right = [places[name].x for name in row]
    left = list(right)
    for n in range(1, len(row)):
        room = (places[row[n - 1]].width + places[row[n]].width) / 2 + GAP
        right[n] = max(right[n], right[n - 1] + room)
        m = len(row) - 1 - n
        room = (places[row[m]].width + places[row[m + 1]].width) / 2 + GAP
        left[m] = min(left[m], left[m + 1] - room)
    for name, a, b in zip(row, left, right, strict=True):
        places[name].x = (a + b) / 2


def _edge(upper: _Place, lower: _Place, top: float, bottom: float, from_lane: bool) -> str:
    """A curve from the foot of a box to the head of the next; straight down through a lane."""
    foot, bend = top + HEIGHT, DROP / 2
    lane = f"M{upper.x:.1f} {top:.1f}V{foot:.1f}" if from_lane else f"M{upper.x:.1f} {foot:.1f}"
    curve = (
        f"C{upper.x:.1f} {foot + bend:.1f} {lower.x:.1f} {bottom - bend:.1f} "
        f"{lower.x:.1f} {bottom:.1f}"
    )
    return f'<path d="{lane}{curve}" fill="none" stroke="{GREY}" stroke-width="0.9"/>'


def _box(run: StageRun, x: float, y: float) -> str:
    """What it is, then which and how long."""
    left = x - BOX / 2
    made, (title, _, which) = run.manifest, run.label.partition(", ")
    which = which or made.fingerprint[:7]
    key, name = html.escape(made.fingerprint), html.escape(f"{made.stage}/{made.fingerprint}")
    return (
        f'<a href="#artifact-{key}"><title>{name}</title>'
        f'<rect x="{left:.1f}" y="{y:.1f}" width="{BOX}" height="{HEIGHT}" rx="5" fill="{PAPER}" '
        f'stroke="{RULE}"/>'
        f'<text x="{left + 12:.1f}" y="{y + 18:.1f}" font-size="11.5" fill="{INK}">'
        f"{html.escape(_short(title))}</text>"
        f'<text x="{left + 12:.1f}" y="{y + 34:.1f}" font-size="10.5" fill="{MUTED}">'
        f"{html.escape(_short(which))} · {duration(made.seconds)}</text></a>"
    )


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
