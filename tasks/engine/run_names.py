"""Names and tags of flow runs: method, preset, data set, and what was changed by hand."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import coolname.data
import prefect.runtime
from prefect import get_client, tags
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from recalign.config import Config
from recalign.config.presets import Settings, changes, complete

PRESET = "preset: "
N_NAMED = 2  # changed settings in the name of a run
TYPED = "recalign.name"  # label of a run: what a person called it
GENERATED = re.compile(  # by the run forms of Prefect 3.8 and 3.9: alpha12-leonis-void, Small-Zebra
    "(alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|omicron|pi|rho|sigma"
    r"|tau|upsilon|phi|chi|psi|omega)\d*(-[a-z0-9]+){1,2}"
    "|(Awesome|Rustic|Small|Gorgeous|Fantastic|Sleek|Intelligent|Unbranded|Refined|Licensed|Generic"
    "|Practical|Ergonomic|Handcrafted|Tasty|Handmade|Incredible)-[A-Z].{0,5}"
)

_preset: ContextVar[Config | None] = ContextVar("_preset", default=None)


@contextmanager
def from_preset(name: str, settings: Config) -> Iterator[None]:
    """Runs of this block are named and tagged as started from this preset."""
    token = _preset.set(settings)
    try:
        with tags(*([PRESET + name] if name else [])):
            yield
    finally:
        _preset.reset(token)


def start_of(default: Settings, parameter: str) -> Settings:
    """Its deployment's settings, or a preset's: what a run has before it is changed by hand."""
    chosen = _preset.get()
    if isinstance(chosen, type(default)):
        return chosen
    return complete(default, _deployed().get(parameter, {}))


def _deployed() -> dict[str, Any]:
    """The parameters of the deployment that runs this; a request may leave out any of them."""
    if not prefect.runtime.deployment.id:
        return {}
    with get_client(sync_client=True) as client:
        try:
            return client.read_deployment(UUID(prefect.runtime.deployment.id)).parameters
        except ObjectNotFound:  # deleted since
            return {}


def name_of(method: str, start: Config, config: Any, stop_after: str = "") -> str:
    """Method, preset, data set, rounds, and what differs from what the run started from."""
    preset = next((tag for tag in prefect.runtime.flow_run.tags if tag.startswith(PRESET)), PRESET)
    words = f"{method} {preset.removeprefix(PRESET)}".strip()
    parts = [f"{words} on {config.interactions.name}"]
    if "rounds" in type(config).model_fields:
        parts.append(f"{config.rounds.n} round" + "s" * (config.rounds.n != 1))
    told = flat(changes(start, config))
    told = [text for text in told if not text.startswith("interactions.")]
    parts += told if len(told) <= N_NAMED else [f"{len(told)} settings changed"]
    return ", ".join([*parts, *([f"until {stop_after}"] if stop_after else [])])


def flat(changed: dict[str, Any], prefix: str = "") -> list[str]:
    """Nested changes as "alignment.beta=0.2"."""
    found: list[str] = []
    for name, value in changed.items():
        inner = isinstance(value, dict)
        found += flat(value, f"{prefix}{name}.") if inner else [f"{prefix}{name}={value}"]
    return found


def announce(name: str, *marks: str) -> None:
    """Name and tag this flow run; what a person called it stays in front, also in a retry."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    run: FlowRun = context.flow_run
    typed = str(run.labels.get(TYPED, "" if is_generated(run.name) else run.name))
    with get_client(sync_client=True) as client:
        called = f"{typed}: {name}" if typed else name
        client.update_flow_run(run.id, name=called, tags=sorted({*run.tags, *marks}))
        client.update_flow_run_labels(run.id, {TYPED: typed})


def is_generated(name: str) -> bool:
    """Whether Prefect made up this name of a run: its server (brave-otter) or one of its forms."""
    lists: dict[str, Any] = coolname.data.config
    known = {word for one in lists.values() for word in one.get("words", ())}
    return bool(GENERATED.fullmatch(name)) or (
        name.count("-") == 1 and set(name.split("-")) <= known
    )
