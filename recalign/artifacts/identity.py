"""What an artifact is computed from: all that its fingerprint is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recalign.artifacts.fingerprint import canonical, fingerprint


@dataclass(frozen=True)
class Identity:
    """Two artifacts of equal identity are the same artifact."""

    stage: str
    version: int
    config: Mapping[str, Any]  # the stage's own settings, those that count
    inputs: Mapping[str, str]  # fingerprints of upstream artifacts, by the stage's names for them
    files: Mapping[str, str]  # sha256 of the raw files read, by role

    @property
    def fingerprint(self) -> str:
        """32 hexadecimal digits."""
        return fingerprint(vars(self))

    def differences(self, other: "Identity") -> list[str]:
        """The fields in which another identity of this stage differs, as `differing` has them."""
        return differing(self._parts(), other._parts())

    def _parts(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "stage"}


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The fields in which two nested mappings differ, as "config.beta: 0.1 -> 0.05".

    Digests of inputs and files are shortened. What only one of the two has comes last.
    """
    flat_before, flat_after = flat(before), flat(after)
    found = []
    both = flat_before.keys() & flat_after.keys()
    for key in sorted(both) + sorted(flat_before.keys() ^ flat_after.keys()):
        first, second = flat_before.get(key, "-"), flat_after.get(key, "-")
        if first != second:
            short = 10 if key.startswith(("inputs", "files")) else None
            found.append(f"{key}: {first[:short]} -> {second[:short]}")
    return found


def flat(value: object, prefix: str = "") -> dict[str, str]:
    """Nested mappings as {"beta": "0.1", "bootstrap.hidden": "64"}."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, inner in value.items():
            found |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: value if isinstance(value, str) else canonical(value)}
