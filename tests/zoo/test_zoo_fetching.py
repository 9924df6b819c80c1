"""Published files: found, fetched through every fault of a server, verified (row 22 of the reliability table)."""

import dataclasses
import hashlib
import json
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from file_server import FileServer

from overtone import zoo
from overtone.errors import OvertoneError
from overtone.published import Published, find
from overtone.zoo import UnverifiedWarning, fetch_published, find_published

CONTENT = bytes(range(256)) * 400


def row(*urls: str, content: bytes = CONTENT, **changes: object) -> Published:
    base = find("mobilenetv2_x010.dli14_in1k")
    assert base is not None
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    known = {"urls": urls, "git_blob_sha1": blob, "sha256_prefix": None, "file": "net.pth"}
    return dataclasses.replace(base, **(known | changes))


def without_hash(*urls: str, **changes: object) -> Published:
    return row(*urls, git_blob_sha1=None, file=None, **changes)


def a_checkpoint(path: Path, value: float = 1.0) -> bytes:
    torch.save({"model": {"weight": torch.full((64,), value)}}, path)
    return path.read_bytes()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.exists() else set()


def test_a_good_server(server: FileServer, cache: Path) -> None:
    url, seen = server.serve("net.pth", CONTENT), []
    located = fetch_published(row(url), progress=lambda done, total: seen.append((done, total)))
    assert located.path == cache / "net.pth" and located.path.read_bytes() == CONTENT
    assert located.proof.verified and located.origin == url
    assert names(cache) == {"net.pth"}
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    again = fetch_published(row(url))
    assert again.origin == "cache" and again.proof.verified
    assert len(server.asked("net.pth")) == 1


def test_a_cut_is_resumed_where_it_happened(server: FileServer, cache: Path) -> None:
    url = server.serve("net.pth", CONTENT, cut_after=30_000, cuts=2)
    assert fetch_published(row(url)).path.read_bytes() == CONTENT
    assert server.asked("net.pth") == [None, "bytes=30000-", "bytes=60000-"]
    assert names(cache) == {"net.pth"}


def test_a_cut_is_resumed_by_the_next_process(server: FileServer, cache: Path) -> None:
    url = server.serve("net.pth", CONTENT, cut_after=20_000)
    with pytest.raises(OvertoneError, match="cut after"):
        fetch_published(row(url))
    assert "net.pth" not in names(cache) and "net.pth.part" in names(cache)
    so_far = (cache / "net.pth.part").stat().st_size
    server.files["net.pth"].cut_after = None
    assert fetch_published(row(url)).path.read_bytes() == CONTENT
    assert server.asked("net.pth")[-1] == f"bytes={so_far}-"
    assert names(cache) == {"net.pth"}


def test_a_server_without_ranges_is_asked_for_all_of_it(server: FileServer, cache: Path) -> None:
    url = server.serve("net.pth", CONTENT, cut_after=20_000, cuts=1, ranges=False)
    assert fetch_published(row(url)).path.read_bytes() == CONTENT
    assert server.asked("net.pth") == [None, "bytes=20000-"]
    assert names(cache) == {"net.pth"}


def test_a_part_of_another_version_is_thrown_away(server: FileServer, cache: Path) -> None:
    url = server.serve("net.pth", b"old" * 30_000, cut_after=20_000, etag='"old"')
    with pytest.raises(OvertoneError):
        fetch_published(row(url))
    server.serve("net.pth", CONTENT, etag='"new"')
    assert fetch_published(row(url)).path.read_bytes() == CONTENT


def test_a_part_that_lies_is_fetched_anew(server: FileServer, cache: Path) -> None:
    """The server says that it is the same file, but it is not: the proof finds out."""
    url = server.serve("net.pth", b"old" * 30_000, cut_after=20_000)
    with pytest.raises(OvertoneError):
        fetch_published(row(url))
    server.serve("net.pth", CONTENT)
    assert fetch_published(row(url)).path.read_bytes() == CONTENT
    assert [asked is None for asked in server.asked("net.pth")] == [False, True]


def test_a_whole_part_needs_no_server(server: FileServer, cache: Path) -> None:
    url = server.serve("net.pth", CONTENT)
    cache.mkdir()
    (cache / "net.pth.part").write_bytes(CONTENT)
    note = {"url": url, "validator": '"one"', "total": len(CONTENT)}
    (cache / "net.pth.part.json").write_text(json.dumps(note))
    assert fetch_published(row(url)).path.read_bytes() == CONTENT
    assert server.asked("net.pth") == []


def test_an_altered_file_is_named_and_never_kept(server: FileServer, cache: Path) -> None:
    altered = bytearray(CONTENT)
    altered[1000] ^= 1
    url = server.serve("net.pth", bytes(altered))
    wanted = row(url)
    with pytest.raises(OvertoneError, match="altered: the git blob sha1 should be") as caught:
        fetch_published(wanted)
    got = hashlib.sha1(b"blob %d\0" % len(altered) + altered).hexdigest()
    assert str(wanted.git_blob_sha1) in str(caught.value) and got in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(cache) == set()


def test_the_next_address_is_tried(server: FileServer, cache: Path) -> None:
    bad = [server.serve("altered", CONTENT[::-1]), server.serve("gone", b"", status=404)]
    good = server.serve("good", CONTENT)
    located = fetch_published(row(*bad, good))
    assert located.origin == good and located.proof.verified
    assert names(cache) == {"net.pth"}


def test_a_silent_server_is_given_up(server: FileServer, cache: Path) -> None:
    silent = server.serve("silent", CONTENT, stall_after=0)
    stalling = server.serve("stalling", CONTENT, stall_after=5000)
    good = server.serve("good", CONTENT)
    with pytest.raises(OvertoneError, match="the server stopped answering"):
        fetch_published(row(silent, stalling), timeout=0.3)
    assert "net.pth" not in names(cache)
    assert fetch_published(row(silent, good), timeout=0.3).origin == good


def test_a_slow_server_is_waited_for(server: FileServer) -> None:
    url = server.serve("net.pth", CONTENT[:20_000], pause=0.02)
    located = fetch_published(row(url, content=CONTENT[:20_000]), timeout=0.3)
    assert located.path.read_bytes() == CONTENT[:20_000]


@pytest.mark.parametrize("how", [{"pause": 0.1}, {"header_pause": 0.05}], ids=["body", "headers"])
def test_a_server_that_trickles_is_given_up_at_the_deadline(server: FileServer, cache: Path, how: dict) -> None:
    """No single byte is late, so no time-out passes; what has arrived is kept for the next attempt."""
    trickling, good = server.serve("trickling", CONTENT, **how), server.serve("good", CONTENT)
    began = time.monotonic()
    with pytest.raises(OvertoneError, match="too slow"):
        fetch_published(row(trickling), timeout=5, deadline=0.8)
    assert time.monotonic() - began < 4
    assert len(server.asked("trickling")) == 1, "another attempt cannot be faster"
    assert "net.pth" not in names(cache)
    if "pause" in how:
        part = (cache / "net.pth.part").read_bytes()
        assert len(part) >= 2048 and CONTENT.startswith(part)
    assert fetch_published(row(trickling, good), timeout=5, deadline=0.8).origin == good


def test_every_byte_is_in_the_file_as_it_arrives(server: FileServer, cache: Path) -> None:
    url, sizes = server.serve("net.pth", CONTENT[:20_000], pause=0.005), []

    def look(done: int, total: int | None) -> None:
        sizes.append((done, (cache / "net.pth.part").stat().st_size))

    fetch_published(row(url, content=CONTENT[:20_000]), progress=look)
    assert len(sizes) > 5 and all(done == size for done, size in sizes)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/net.pth", "file:///etc/passwd", "data:text/plain,a", "FTP://a/b"])
def test_a_redirect_to_anything_but_the_web_is_refused(server: FileServer, cache: Path, target: str) -> None:
    url = server.serve("net.pth", b"", redirect=target)
    with pytest.raises(OvertoneError, match="which is not a web address") as caught:
        fetch_published(row(url), timeout=2)
    assert "\n" not in str(caught.value) and names(cache) == set()


def test_a_redirect_within_the_web_is_followed(server: FileServer, cache: Path) -> None:
    server.serve("there", CONTENT)
    url = server.serve("here", b"", redirect="/there")
    assert fetch_published(row(url)).path.read_bytes() == CONTENT


def test_a_cut_without_a_length_is_found_by_the_proof(server: FileServer, cache: Path) -> None:
    url = server.serve("net.pth", CONTENT, cut_after=5000, length=False)
    with pytest.raises(OvertoneError, match="altered"):
        fetch_published(row(url))
    assert names(cache) == set()


def test_a_server_that_sends_too_much_is_stopped(server: FileServer, cache: Path) -> None:
    for length in (True, False):
        url = server.serve("net.pth", CONTENT, length=length)
        with pytest.raises(OvertoneError, match="far more than the file can have"):
            fetch_published(row(url, size_bytes=1000))


def test_offline_says_the_address_and_where_to_put_the_file(cache: Path) -> None:
    url = "http://127.0.0.1:9/net.pth"
    with pytest.raises(OvertoneError) as caught:
        fetch_published(row(url), timeout=2)
    message = str(caught.value)
    assert url in message and str(cache / "net.pth") in message and "OVERTONE_WEIGHTS_DIR" in message
    assert "\n" not in message
    assert names(cache) <= {"net.pth.part.json"}


def test_rows_without_weights_and_caches_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OvertoneError, match="published without weights"):
        fetch_published(row())
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "a file" / "cache"))
    with pytest.raises(OvertoneError, match="OVERTONE_CACHE"):
        fetch_published(row("http://127.0.0.1:9/net.pth"))


def test_fetched_once_by_many_at_a_time(server: FileServer) -> None:
    url = server.serve("net.pth", CONTENT, pause=0.002)
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch_published(row(url)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4 and all(located.path.read_bytes() == CONTENT for located in found)
    assert len(server.asked("net.pth")) == 1


# A file without a published hash


def test_first_use_is_recorded_and_a_later_change_is_found(server: FileServer, cache: Path, tmp_path: Path) -> None:
    content = a_checkpoint(tmp_path / "made.pth")
    wanted = without_hash(server.serve("?dl=1".strip("?"), content))
    with pytest.warns(UnverifiedWarning, match="unverified"):
        first = fetch_published(wanted)
    assert first.path.name == f"{wanted.full_name}.pth" and not first.proof.verified and first.proof.expected is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = fetch_published(wanted)
    assert second.proof.expected == hashlib.sha256(content).hexdigest() and second.proof.holds
    first.path.write_bytes(a_checkpoint(tmp_path / "other.pth", value=2.0))
    with pytest.raises(OvertoneError, match=r"sha256|first_use") as caught:
        fetch_published(wanted)
    assert "proofs.json" in str(caught.value)
    first.path.unlink()
    server.serve("dl=1", a_checkpoint(tmp_path / "other.pth", value=2.0))
    with pytest.raises(OvertoneError, match="altered"):
        fetch_published(wanted)


def test_a_web_page_is_no_checkpoint(server: FileServer, cache: Path) -> None:
    page = server.serve("page", b"<!DOCTYPE html><title>link has expired</title>" * 10)
    with pytest.raises(OvertoneError, match="web page"):
        fetch_published(without_hash(page))
    assert names(cache) == set()


def test_a_cut_file_without_hash_and_length_is_no_checkpoint(server: FileServer, cache: Path, tmp_path: Path) -> None:
    content = a_checkpoint(tmp_path / "made.pth")
    url = server.serve("cut", content, length=False, cut_after=len(content) // 2)
    with pytest.raises(OvertoneError, match="something other than a checkpoint"):
        fetch_published(without_hash(url))
    assert names(cache) == set()


def test_openmmlabs_names_have_a_hash(server: FileServer, tmp_path: Path) -> None:
    content = a_checkpoint(tmp_path / "made.pth")
    prefix = hashlib.sha256(content).hexdigest()[:8]
    good = server.serve(f"hornet-tiny_3rdparty_in1k_20220915-{prefix}.pth", content)
    bad = server.serve("hornet-tiny_3rdparty_in1k_20220915-0e8eedff.pth", content)
    located = fetch_published(without_hash(bad, good))
    assert located.origin == good and located.proof.verified and located.proof.kind == "sha256_prefix"


def test_a_record_that_cannot_be_read_is_said(cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    (cache / "proofs.json").write_text("{")
    wanted = without_hash("http://127.0.0.1:9/")
    (cache / f"{wanted.full_name}.pth").write_bytes(a_checkpoint(tmp_path / "made.pth"))
    with pytest.raises(OvertoneError, match=r"proofs\.json"):
        find_published(wanted)


# Files put somewhere by hand


def test_by_hand_by_name_or_by_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, folder = row("http://127.0.0.1:9/net.pth"), tmp_path / "by hand"
    folder.mkdir()
    (folder / "unrelated.pth").write_bytes(b"something else")
    assert find_published(wanted, folder) is None
    (folder / "renamed by somebody.pth").write_bytes(CONTENT)
    found = find_published(wanted, folder)
    assert found is not None and found.path.name == "renamed by somebody.pth" and found.proof.verified
    (folder / "net.pth").write_bytes(CONTENT[::-1])  # the right name is no proof
    assert find_published(wanted, folder) == found
    (folder / "net.pth").write_bytes(CONTENT)
    by_name = find_published(wanted, [tmp_path, folder])
    assert by_name is not None and by_name.path.name == "net.pth"
    assert find_published(wanted) is None
    monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(folder))
    assert find_published(wanted) == by_name
    assert fetch_published(wanted) == by_name


def test_by_hand_altered_or_no_folder(tmp_path: Path) -> None:
    wanted = row("http://127.0.0.1:9/net.pth")
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(OvertoneError, match=r"net\.pth: the git blob sha1 should be"):
        find_published(wanted, tmp_path)
    with pytest.raises(OvertoneError, match="is not a folder"):
        find_published(wanted, tmp_path / "none")


def test_by_hand_without_a_published_hash(tmp_path: Path) -> None:
    wanted = without_hash("http://127.0.0.1:9/")
    path = tmp_path / f"{wanted.full_name}.pth"
    a_checkpoint(path)
    with pytest.warns(UnverifiedWarning):
        assert find_published(wanted, tmp_path) is not None
    located = find_published(wanted, tmp_path)
    assert located is not None and located.proof.holds
    a_checkpoint(path, value=3.0)
    with pytest.raises(OvertoneError, match="not the file that was published"):
        find_published(wanted, tmp_path)


@pytest.mark.parametrize("kind", ["git_blob_sha1", "sha256", "sha256_prefix"])
def test_every_kind_of_proof(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    value = {"git_blob_sha1": row().git_blob_sha1, "sha256": sha256, "sha256_prefix": sha256[:8]}[kind]
    only = {"git_blob_sha1": None, "sha256": None, "sha256_prefix": None} | {kind: value}
    proof = zoo.verify(path, row(**only))
    assert proof.kind == kind and proof.holds and proof.verified and proof.expected == value
    path.write_bytes(CONTENT + b"\0")
    proof = zoo.verify(path, row(**only))
    assert not proof.holds and not proof.verified and str(proof.actual) in str(proof)
