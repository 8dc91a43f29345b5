"""The identity of an artifact: sha256 of canonical JSON that never guesses."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence


def canonical(value: object) -> str:
    """`value` as JSON with sorted keys and no spaces, equal in every process.

    Only None, bool, int, finite float, str, lists, tuples and mappings with string keys are
    taken. Raises TypeError for any other type (a set, a path, an object) and ValueError for NaN.
    """
    return json.dumps(_plain(value, "value"), sort_keys=True, separators=(",", ":"))


def _plain(value: object, where: str) -> object:
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: only finite numbers have a fingerprint")
        return value
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}: only text keys have a fingerprint")
        return {key: _plain(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(inner, f"{where}[{index}]") for index, inner in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}: it has no fingerprint")


def fingerprint(identity: Mapping[str, object]) -> str:
    """The fingerprint of a stage's output, 32 hexadecimal digits; see `Identity` for the parts."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()[:32]
