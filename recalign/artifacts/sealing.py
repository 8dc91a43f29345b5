"""How a draft becomes whole: its files on disk, and the manifest that names them written last."""

import json
import stat
import time

from recalign.artifacts.artifact import WORK, Draft
from recalign.artifacts.digests import file_digest, stamp, sync, write_atomically
from recalign.artifacts.manifest import OutputFile
from recalign.artifacts.provenance import cpu_seconds, peaks_mb

MANIFEST = "manifest.json"
STAMPS = ".stamps.json"  # size, mtime and inode of each file when it was last hashed


def seal(draft: Draft) -> None:
    """Hash and sync every output, then write the manifest: a draft that has one is whole."""
    manifest, stamps = draft.manifest, {}
    work = draft.folder / WORK
    for path in sorted(p for p in draft.folder.rglob("*") if p.is_file()):
        name = path.relative_to(draft.folder).as_posix()
        hidden = f"/{name}".count("/.")  # a file system's own, as .nfs0001 or ._model.safetensors
        if hidden or work in path.parents:
            continue
        sync(path)
        manifest.outputs[name] = OutputFile(size=path.stat().st_size, sha256=file_digest(path))
        stamps[name] = stamp(path)
    manifest.digest = manifest.content
    manifest.told = manifest.telling
    manifest.seconds = round(time.monotonic() - draft._started, 3)
    manifest.cpu_seconds = round(cpu_seconds() - draft._started_cpu, 3)
    manifest.peak_memory_mb, manifest.peak_gpu_memory_mb = peaks_mb()
    write_atomically(draft.folder / STAMPS, json.dumps(stamps))
    mode = stat.S_IMODE((draft.folder / STAMPS).stat().st_mode)  # what the umask makes of it
    for name in manifest.outputs:  # safetensors writes for the owner only
        if stat.S_IMODE((draft.folder / name).stat().st_mode) != mode:
            (draft.folder / name).chmod(mode)
    write_atomically(draft.folder / MANIFEST, manifest.model_dump_json(indent=1))
