"""Write the report: one HTML file with its styles and pictures inside, no request to anywhere."""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from recalign.report import wording
from recalign.report.content import Page, StageRun
from recalign.report.lineage import lineage_graph

SCRIPT = "sort.js"


def write_page(page: Page, path: Path) -> Path:
    """Write the page to `path` and return it; equal content gives equal bytes."""
    path.write_text(render(page), encoding="utf-8")
    return path


def render(page: Page) -> str:
    """The page as HTML; all text of the content is escaped, pictures stand in it as they are."""
    environment = Environment(
        loader=PackageLoader("recalign.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": wording.metric, "count": wording.count, "duration": wording.duration,
        "reasons": wording.reasons,
    }  # fmt: skip
    script = (Path(__file__).parent / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("template.html").render(
        page=page,
        script=script,
        script_digest=f"sha256-{digest}",  # the only script that the page lets run
        lineage=lineage_graph(page.stages),
        packages=shared_packages(page.stages),
        own_packages=own_packages,
    )


def shared_packages(stages: Sequence[StageRun]) -> dict[str, str]:
    """The version of each package that most artifacts were made with: {"torch": "2.13.0"}."""
    versions: dict[str, Counter[str]] = {}
    for run in stages:
        for name, version in run.manifest.packages.items():
            versions.setdefault(name, Counter())[version] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in versions.items()}


def own_packages(run: StageRun, shared: Mapping[str, str]) -> str:
    """The versions in which one artifact differs from the shared ones."""
    own = run.manifest.packages.items()
    return ", ".join(f"{name} {v}" for name, v in own if shared.get(name) != v)
