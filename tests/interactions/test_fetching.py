import gzip
import hashlib
import io
import logging
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recalign.config import AmazonSource, InteractionsConfig
from recalign.errors import BadInputError, UserError
from recalign.interactions.fetch import Download, UnknownChecksum, fetch
from recalign.interactions.ingest import ingest
from recalign.interactions.sources import read_source, source_files
from tests.full_disk import on_a_full_disk

CONTENT = gzip.compress(bytes(range(256)) * 4096, compresslevel=0, mtime=0)  # about a megabyte
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Publisher:
    """A loopback server that can hang up early, forget ranges, fail or change its file."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    hang_up_after: list[int] = field(default_factory=list)  # bytes sent, per connection
    failures: list[int] = field(default_factory=list)  # status codes, per connection
    ranges: bool = True
    etag: str = '"1"'


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            publisher.requests.append((self.path, asked))
            if publisher.failures:
                self.send_error(publisher.failures.pop(0))
                return
            content = publisher.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            same = self.headers.get("If-Range", publisher.etag) == publisher.etag
            start = 0
            if asked and publisher.ranges and same:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            else:
                self.send_response(200)
            self.send_header("ETag", publisher.etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            sent = publisher.hang_up_after.pop(0) if publisher.hang_up_after else len(content)
            self.wfile.write(content[start : start + sent])

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Answer


@pytest.fixture
def publisher(monkeypatch) -> Iterator[Publisher]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Publisher()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    state.base = f"http://127.0.0.1:{server.server_port}"
    state.files["/data.gz"] = CONTENT
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield state
    server.shutdown()
    server.server_close()


def get(publisher: Publisher, folder, md5: str | None = MD5, sha256: Sequence[str] = ()):
    target = folder / "cache" / "data.gz"
    url = f"{publisher.base}/data.gz"
    return fetch(Download(url, target, "terms", md5, sha256), pause=0)


def movielens_zip(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}/ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,4\n")
        archive.writestr(f"{name}/movies.csv", "movieId,title,genres\n2,Heat (1995),Crime\n")
    return packed.getvalue()


def test_a_download_is_whole_reports_progress_and_happens_once(publisher, tmp_path, monkeypatch):
    seen = []
    target = tmp_path / "data.gz"
    shown: list[str] = []
    heard = lambda line: shown.append(f"{line} ({len(publisher.requests)} requests)")  # noqa: E731
    monkeypatch.setattr(logging.getLogger("recalign.interactions.fetch"), "warning", heard)
    for _ in range(2):
        fetch(
            Download(f"{publisher.base}/data.gz", target, "no redistribution", MD5),
            progress=lambda done, total, note="": seen.append((done, total, note)),
        )
    assert target.read_bytes() == CONTENT
    assert shown == ["no redistribution (0 requests)"]
    assert len(publisher.requests) == 1
    assert seen[-1] == (len(CONTENT), len(CONTENT), "data.gz")
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".digests.json", "data.gz", "data.gz.lock"]


@pytest.mark.parametrize("stated", [{}, {"md5": None, "sha256": [SHA256]}])
def test_what_was_checked_once_is_not_read_again_until_it_changes(
    publisher, tmp_path, monkeypatch, stated
):
    read: list[int] = []
    digest = hashlib.file_digest

    def file_digest(file, algorithm):
        read.append(file.seek(0, 2))
        file.seek(0)
        return digest(file, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    for _ in range(3):
        target = get(publisher, tmp_path, **stated)
    assert read == [len(CONTENT)]
    target.write_bytes(CONTENT[:-1] + b"?")
    assert get(publisher, tmp_path, **stated).read_bytes() == CONTENT
    assert read == [len(CONTENT)] * 3


def test_a_truncated_download_is_resumed_where_it_stopped(publisher, tmp_path):
    publisher.hang_up_after = [1000, 500]
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in publisher.requests] == [None, "bytes=1000-", "bytes=1500-"]


def test_a_download_cut_short_for_good_is_refused_and_the_next_call_resumes_it(publisher, tmp_path):
    publisher.hang_up_after = [100, 100, 100, 100]
    with pytest.raises(BadInputError, match="cut short after 400 bytes"):
        get(publisher, tmp_path)
    assert not (tmp_path / "cache" / "data.gz").exists()
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    assert publisher.requests[-1] == ("/data.gz", "bytes=400-")


def test_a_file_that_changed_meanwhile_is_fetched_anew(publisher, tmp_path):
    publisher.hang_up_after = [100, 100, 100, 100]
    with pytest.raises(BadInputError):
        get(publisher, tmp_path)
    other = gzip.compress(b"another edition" * 1000, compresslevel=0)
    publisher.files["/data.gz"], publisher.etag = other, '"2"'
    assert get(publisher, tmp_path, hashlib.md5(other).hexdigest()).read_bytes() == other


def test_a_server_that_ignores_ranges_starts_over(publisher, tmp_path):
    publisher.hang_up_after, publisher.ranges = [1000], False
    assert get(publisher, tmp_path).read_bytes() == CONTENT


def test_a_partial_file_that_is_already_whole_is_taken(publisher, tmp_path):
    part = tmp_path / "cache" / "data.gz.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    assert get(publisher, tmp_path).read_bytes() == CONTENT


def test_a_file_with_the_wrong_md5_is_deleted_and_refused(publisher, tmp_path):
    publisher.files["/data.gz"] = CONTENT[:-1] + b"?"
    with pytest.raises(BadInputError, match=f"the publisher's is {MD5}"):
        get(publisher, tmp_path)
    left = sorted(p.name for p in (tmp_path / "cache").iterdir())
    assert "data.gz" not in left
    assert "data.gz.part" not in left
    publisher.files["/data.gz"] = CONTENT
    assert get(publisher, tmp_path).read_bytes() == CONTENT


def test_a_damaged_copy_in_the_cache_is_fetched_again(publisher, tmp_path):
    target = get(publisher, tmp_path)
    target.write_bytes(CONTENT[:500])
    assert get(publisher, tmp_path).read_bytes() == CONTENT


def test_without_a_published_checksum_a_whole_file_waits_until_its_sha256_is_stated(
    publisher, tmp_path
):
    publisher.files["/data.gz"] = CONTENT[:-5]
    with pytest.raises(BadInputError, match="no whole gzip file"):
        get(publisher, tmp_path, md5=None)
    publisher.files["/data.gz"] = CONTENT
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    for stated in ([], ["0" * 64]):
        with pytest.raises(UnknownChecksum, match=sha256):
            get(publisher, tmp_path, None, stated)
    sent = len(publisher.requests)
    assert get(publisher, tmp_path, None, [sha256]).read_bytes() == CONTENT
    assert publisher.requests[sent:] == [("/data.gz", f"bytes={len(CONTENT)}-")]  # nothing anew
    with pytest.raises(UnknownChecksum):
        get(publisher, tmp_path, None, [])


def test_a_changing_file_is_checked_against_the_md5_that_lies_beside_it(
    publisher, tmp_path, caplog
):
    publisher.files["/ml-latest-small.zip"] = zipped = movielens_zip("ml-latest-small")
    config = InteractionsConfig(source="ml-latest-small")
    with pytest.raises(UserError, match=r"ml-latest-small\.zip\.md5: holds no MD5 \(status 404\)"):
        source_files(config, tmp_path, mirror=publisher.base)
    digest = hashlib.md5(zipped).hexdigest()
    publisher.files["/ml-latest-small.zip.md5"] = f"MD5 (ml-latest-small.zip) = {digest}".encode()
    for _ in range(2):
        source_files(config, tmp_path, mirror=publisher.base)
    assert len(caplog.messages) == 1
    assert "changes over time" in caplog.messages[0]
    publisher.files.clear()  # the second call above needed nothing, nor does a third
    assert source_files(config, tmp_path, mirror=publisher.base)[0].read_bytes() == zipped
    assert [path for path, _ in publisher.requests].count("/ml-latest-small.zip") == 1


def test_a_passing_server_error_is_tried_again_and_a_lasting_one_refused(publisher, tmp_path):
    publisher.failures = [503, 500]
    assert get(publisher, tmp_path / "a").read_bytes() == CONTENT
    publisher.failures = [403]
    with pytest.raises(UserError, match="answered 403"):
        get(publisher, tmp_path / "b")


def test_a_disk_that_fills_up_is_told_in_one_line_and_the_download_resumed(publisher, tmp_path):
    code = f"""
from pathlib import Path
from recalign.errors import UserError
from recalign.interactions.fetch import Download, fetch
target = Path("cache/data.gz")
try:
    fetch(Download("{publisher.base}/data.gz", target, "terms", "{MD5}"), pause=0)
except UserError as error:
    print(error)
"""
    printed = on_a_full_disk(code, tmp_path)
    told = "cache: cannot be written (File too large); what is there is kept, run again to resume\n"
    assert printed == told
    assert get(publisher, tmp_path).read_bytes() == CONTENT
    assert publisher.requests[-1] == ("/data.gz", "bytes=50000-")


def test_an_unreachable_server_is_told_with_the_way_around(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match=r"cannot be reached.*interactions\.raw_folder"):
        fetch(Download("http://127.0.0.1:9/x.gz", tmp_path / "x.gz", terms=""), pause=0)


def test_amazon_is_downloaded_with_its_terms_once_its_checksums_are_stated(
    publisher, tmp_path, caplog
):
    reviews = b'{"reviewerID": "u", "asin": "B1", "overall": 5.0, "unixReviewTime": 7}\n'
    publisher.files["/reviews_Beauty_5.json.gz"] = gzip.compress(reviews)
    publisher.files["/meta_Beauty.json.gz"] = gzip.compress(b"{'asin': 'B1', 'title': 'Balm'}\n")
    config = InteractionsConfig(
        source="amazon", amazon=AmazonSource(year="2014", category="Beauty"), k_core=0
    )
    with pytest.raises(BadInputError) as refusal:
        source_files(config, tmp_path, mirror=publisher.base)
    assert all("research use" in line for line in caplog.messages)
    assert len(caplog.messages) == 2
    digests = [hashlib.sha256(content).hexdigest() for content in publisher.files.values()]
    digests = [digest for digest in digests if digest in str(refusal.value)]
    assert len(digests) == 2
    assert "interactions.sha256=[" in str(refusal.value)
    config = config.model_copy(update={"sha256": digests})
    files = source_files(config, tmp_path, mirror=publisher.base)
    assert ingest(read_source(config, files), config).items["title"].to_list() == ["Balm"]


def test_editions_of_amazon_whose_files_have_the_same_names_do_not_share_them(publisher, tmp_path):
    places = {"2014": ["/reviews_Beauty_5", "/meta_Beauty"],
              "2018": ["/categoryFilesSmall/Beauty_5", "/metaFiles2/meta_Beauty"]}  # fmt: skip
    read = {}
    for year, [reviews, metadata] in places.items():
        contents = [f'{{"asin": "{year}"}}\n'.encode(), f'{{"title": "{year}"}}\n'.encode()]
        packed = [gzip.compress(content) for content in contents]
        publisher.files |= {f"{reviews}.json.gz": packed[0], f"{metadata}.json.gz": packed[1]}
        config = InteractionsConfig(
            source="amazon", amazon=AmazonSource(year=year, category="Beauty"),
            sha256=[hashlib.sha256(content).hexdigest() for content in packed],
        )  # fmt: skip
        files = source_files(config, tmp_path, mirror=publisher.base)
        assert source_files(config, tmp_path, download=False) == files
        read[year] = [gzip.decompress(file.read_bytes()) for file in files] == contents
    assert read == {"2014": True, "2018": True}
    assert (tmp_path / "meta_Beauty.json.gz").exists()  # as versions before left it


def test_a_movielens_zip_other_than_the_published_one_is_refused(publisher, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("ml-100k/u.data", "1\t2\t3\t4\n")
    publisher.files["/ml-100k.zip"] = packed.getvalue()
    config = InteractionsConfig(source="ml-100k")
    with pytest.raises(BadInputError, match="publisher's is 0e33842e24a9c977be4e0107933c0723"):
        source_files(config, tmp_path, mirror=publisher.base)


def test_nothing_is_fetched_when_the_raw_folder_holds_the_files(publisher, tmp_path):
    for name in ("u.data", "u.item"):
        (tmp_path / name).write_text("x")
    config = InteractionsConfig(source="ml-100k", raw_folder=str(tmp_path))
    files = source_files(config, tmp_path / "cache", mirror=publisher.base)
    assert files == [tmp_path / "u.data", tmp_path / "u.item"]
    assert publisher.requests == []
    assert not (tmp_path / "cache").exists()
