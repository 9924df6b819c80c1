"""Folders are replaced whole or not at all, and no file of the user's is ever removed."""

import signal
import subprocess
import sys

import pytest

from overtone.errors import OvertoneError
from overtone.replacing import check_replaceable, foreign_files, remove_files, replacing_folder

OURS = ("model.*", "logs/events.*", "about.json")


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def replace(out, **files):
    with replacing_folder(out, OURS) as new:
        write(new, **files)


def test_a_folder_of_ours_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    out = tmp_path / "out"
    for text in ("old", "new"):
        replace(out, about_json=text, logs__events_1=text)
    assert (out / "about.json").read_text() == "new" and names(out) == ["about.json", "logs/events.1"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def replace_by(out, block):
    with replacing_folder(out, OURS) as new:
        block(new)


@pytest.mark.parametrize("stranger", ["mine_txt", "logs__mine_txt", "logs__deep__events_1", "sub__model_xml"])
def test_a_folder_with_another_file_is_refused_with_its_name(tmp_path, stranger):
    out = write(tmp_path / "out", about_json="old", logs__events_1="old")
    path = out / stranger.replace("__", "/").replace("_", ".")
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    before = names(out)
    with pytest.raises(OvertoneError, match=path.name):
        replace(out, about_json="new")
    assert names(out) == before and path.read_text() == "mine"
    assert (out / "about.json").read_text() == "old"


def test_a_file_that_appears_meanwhile_is_kept(tmp_path):
    out = write(tmp_path / "out", about_json="old")
    with pytest.raises(OvertoneError, match=r"late\.txt"):
        replace_by(out, lambda new: (write(new, about_json="new"), write(out, late_txt="mine")))
    assert names(out) == ["about.json", "late.txt"] and (out / "about.json").read_text() == "old"


def test_links_are_never_followed(tmp_path):
    elsewhere = write(tmp_path / "elsewhere", model_xml="mine")
    out = write(tmp_path / "out", about_json="old")
    (out / "logs").symlink_to(elsewhere)
    assert foreign_files(out, OURS) == ["logs"]
    with pytest.raises(OvertoneError, match="logs"):
        check_replaceable(out, OURS, "choose another")
    remove_files(out, OURS)
    assert names(elsewhere) == ["model.xml"] and (out / "logs").is_symlink()


def test_a_file_is_not_a_folder_to_replace(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OvertoneError, match="is a file"):
        replace(tmp_path / "out", about_json="new")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_block_that_fails_leaves_the_earlier_folder(tmp_path):
    out = write(tmp_path / "out", about_json="old")
    with pytest.raises(ZeroDivisionError):
        replace_by(out, lambda new: (write(new, about_json="new"), 1 / 0))
    assert (out / "about.json").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out"]


def writing(out):
    """A process inside the block, to be killed."""
    code = (
        "import sys, time; from pathlib import Path; from overtone.replacing import replacing_folder\n"
        f"with replacing_folder(Path({str(out)!r}), {OURS!r}) as new:\n"
        "    new.mkdir(); (new / 'anything').write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"ready\n"
    return process


def test_what_a_killed_process_left_goes_with_the_next_one_but_not_that_of_a_live_one(tmp_path):
    out = tmp_path / "out"
    process = writing(out)
    replace(out, about_json="first")
    assert len(list(tmp_path.glob(".out.*.tmp"))) == 1, "the other process still writes there"
    process.send_signal(signal.SIGKILL)
    process.wait()
    replace(out, about_json="second")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_earlier_folder_comes_back_after_a_kill_between_the_two_renamings(tmp_path, monkeypatch):
    out = tmp_path / "out"
    process = writing(out)
    process.kill()
    process.wait()
    (work,) = tmp_path.glob(".out.*.tmp")
    write(work / "old", about_json="old")
    seen = []
    with pytest.raises(ZeroDivisionError):
        replace_by(out, lambda new: (seen.append((out / "about.json").read_text()), 1 / 0))
    assert seen == ["old"]
    assert (out / "about.json").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folders_that_only_look_like_leftovers_stay(tmp_path):
    mine = write(tmp_path / ".out.2024.tmp", notes_txt="mine")
    replace(tmp_path / "out", about_json="new")
    assert names(mine) == ["notes.txt"]


def test_removal_names_what_may_go(tmp_path):
    folder = write(tmp_path / "run", model_xml="1", about_json="2", mine="3", logs__events_5="4")
    remove_files(folder, OURS)
    assert names(folder) == ["mine"]
    (folder / "mine").unlink()
    remove_files(folder, OURS)
    assert not folder.exists()


def test_permissions_are_those_of_a_folder_made_by_hand(tmp_path):
    (tmp_path / "by hand").mkdir()
    replace(tmp_path / "out", about_json="new")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "by hand").stat().st_mode
