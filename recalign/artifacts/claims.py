"""A lock where there are only files behind a URL: a claim that is created once and kept fresh."""

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol, Self

from filelock import Timeout

from recalign.artifacts.remote import Remote

log = logging.getLogger(__name__)

BEAT = 15.0  # seconds between two signs of life of whoever holds a claim
PATIENCE = 60.0  # seconds without one after which whoever waits takes the claim over
POLL = 2.0  # seconds between two looks of whoever waits


class Lock(Protocol):
    """What a lock offers, whether it is a file's or a claim."""

    def acquire(self, timeout: float = ...) -> AbstractContextManager[object]:
        """Hold it; -1 waits for ever, else Timeout after so many seconds."""

    def release(self) -> None:
        """Give it back."""

    def __enter__(self) -> object: ...
    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> None: ...


class Claim:
    """An object that only one process can create (S3: a conditional put), renewed while held.

    A holder that was killed leaves it behind; it is dead once it has not changed for PATIENCE by
    the clock of the one who waits, so clocks need not agree. If several processes find it dead at
    once, a slower one may delete the new claim of a faster one; so whoever took over waits POLL
    seconds and checks that its own claim is still there. A holder that sleeps longer than PATIENCE
    and then wakes up may compute at the same time as its successor: both commit the same content.
    """

    def __init__(self, remote: Remote, name: str):
        self._remote, self._name = remote, name
        self._owner = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._released = threading.Event()
        self._beats = threading.Thread(target=self._stay_alive, daemon=True)

    def acquire(self, timeout: float = -1) -> None:
        """Wait for the claim; Timeout after so many seconds (-1: never)."""
        started, seen, since = time.monotonic(), None, time.monotonic()
        took_over = False
        while not (self._create() and (not took_over or self._kept())):
            now, current = time.monotonic(), self._remote.read(self._name)
            if current != seen:
                seen, since = current, now
            elif now - since > PATIENCE:
                log.warning("the claim of %s is dead: taken over", (current or b"nobody").decode())
                self._delete()
                took_over, seen, since = True, None, now
                continue
            if 0 <= timeout <= now - started:
                raise Timeout(self._name)
            time.sleep(POLL)
        self._beats.start()

    def release(self) -> None:
        """Give the claim back, if it is still ours."""
        self._released.set()
        self._beats.join()
        try:
            if self._is_ours():
                self._delete()
        except Exception as error:  # whatever that file system raises: the claim dies by itself
            log.warning("%s could not be given back: %s", self._name, error)

    def _create(self) -> bool:
        try:
            self._remote.write(self._name, self._text(0), mode="create")
        except FileExistsError:
            return False
        return True

    def _kept(self) -> bool:
        """Whether the claim is still ours after a while."""
        time.sleep(POLL)
        return self._is_ours()

    def _is_ours(self) -> bool:
        return self._owner.encode() in (self._remote.read(self._name) or b"")

    def _text(self, beat: int) -> bytes:
        return json.dumps({"owner": self._owner, "beat": beat}).encode()

    def _stay_alive(self) -> None:
        beat = 0
        while not self._released.wait(BEAT):
            beat += 1
            try:
                self._remote.write(self._name, self._text(beat))
            except Exception as error:  # whatever that file system raises: the next beat may pass
                log.warning("%s could not be renewed: %s", self._name, error)

    def _delete(self) -> None:
        with suppress(FileNotFoundError):
            self._remote.files.rm_file(f"{self._remote.path}/{self._name}")


class ClaimedLock:
    """A local lock and the claim beside it, used like a FileLock: both or none are held."""

    def __init__(self, local: Lock, remote: Remote, name: str):
        self._local, self._remote, self._name = local, remote, name
        self._claim: Claim | None = None

    def acquire(self, timeout: float = -1) -> Self:
        """Hold both; Timeout when another process of this or another machine has one."""
        self._local.acquire(timeout)
        if self._claim is None:
            claim = Claim(self._remote, self._name)
            try:
                with self._remote.asked():
                    claim.acquire(timeout)
            except BaseException:
                self._local.release()
                raise
            self._claim = claim
        return self

    def release(self) -> None:
        """Give both back."""
        claim, self._claim = self._claim, None
        try:
            if claim:
                claim.release()
        finally:
            self._local.release()

    def __enter__(self) -> Self:
        return self if self._claim else self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()
