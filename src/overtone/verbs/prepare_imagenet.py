"""`overtone data prepare-imagenet`: ImageNet's archives and its flat validation folder, sorted into class folders.

Every image gets its final name only when it is complete; existing images are kept, so a later call continues one that
was interrupted. Archives are untrusted: plain image names only, no links, no paths.
"""

import contextlib
import errno
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock, Timeout

from overtone import options
from overtone.data.folders import SUFFIXES, has_images, images_in, subfolders
from overtone.data.imagenet import NUM_CLASSES, NUM_TRAIN, NUM_VALIDATION, find_labels, read_labels, synsets
from overtone.errors import OvertoneError
from overtone.verbs.console import note, print_line, progress, warn

_LOCK = ".prepare-imagenet.lock"
_TEMPORARY = ".overtone-part"


@dataclass
class Done:
    """The work of a call: images placed, images that existed already, and all of them by class."""

    placed: int = 0
    kept: int = 0
    classes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Image:
    """An image to sort: its class, its name there, its size, and where its bytes are."""

    synset: str
    name: str
    size: int
    file: Path | None = None
    member: tuple[tarfile.TarFile, tarfile.TarInfo] | None = None


def prepare_imagenet(chosen: options.PrepareImageNet) -> int:
    """Sort the images and report what there is now; 1 if fewer images are there than were found.

    Raises:
        OvertoneError: a source that is none of ImageNet's, an archive with something else in it, an image without a
            label, another file in an image's place, a full disk, or another call at work in the folder.
    """
    source, out = chosen.source, chosen.out
    if not source.exists():
        raise OvertoneError(f"{source} does not exist; give ImageNet's archive or its folder of validation images")
    if source.is_file() and chosen.how != "copy":
        raise OvertoneError(f"images in an archive can only be copied out of it; leave --how {chosen.how} away")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _only_one(out):
            done = _sort(_images(source, chosen.labels), source, out, chosen.how)
    except tarfile.TarError as error:
        raise OvertoneError(
            f"{source} cannot be read as an archive: {error}; it may be truncated: complete images have been kept"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise OvertoneError(
            f"{error.filename or out} could not be written or read: {reason}; correct that and call again"
        ) from error
    return _report(done, out)


def _sort(images: Iterable[_Image], source: Path, out: Path, how: str) -> Done:
    done = Done()
    with progress(f"sorting {source.name}", NUM_TRAIN if "train" in source.name else NUM_VALIDATION) as advance:
        for image in images:
            if _place(image, out, how):
                done.placed += 1
            else:
                done.kept += 1
            done.classes[image.synset] += 1
            if (done.placed + done.kept) % 100 == 0:
                advance(done.placed + done.kept)
    if not done.classes:
        raise OvertoneError(f"{source} holds no images; give ImageNet's archive or its folder of validation images")
    return done


def _report(done: Done, out: Path) -> int:
    """Count the images in the folder, and compare with those found and with all of ImageNet."""
    folders = {name: path for name, path in subfolders(out).items() if name in set(synsets())}
    there = {name: len(images) for name, images in images_in(folders).items()}
    short = [name for name, count in done.classes.items() if there.get(name, 0) < count]
    total, classes = sum(there.values()), sum(count > 0 for count in there.values())
    print_line(
        f"{out}: {total} images in {classes} class folders; {done.placed} placed now, {done.kept} existed already"
    )
    whole = {NUM_VALIDATION: "the validation set", NUM_TRAIN: "the training set"}
    if total in whole and classes == NUM_CLASSES:
        note(f"that is all of {whole[total]}")
    else:
        note(f"ImageNet-1K has {NUM_VALIDATION} validation and {NUM_TRAIN} training images in {NUM_CLASSES} classes")
    for name in short:
        warn(f"{out / name} has {there.get(name, 0)} images where {done.classes[name]} were found")
    return 1 if short else 0


# --- what there is to sort


def _images(source: Path, labels: Path | None) -> Iterator[_Image]:
    if source.is_file():
        with _archive(source) as archive:
            yield from _in_archive(archive, source, labels)
    elif has_images(source):
        yield from _in_flat_folder(source, labels)
    else:
        tars = sorted(path for path in source.iterdir() if path.suffix == ".tar" and path.stem in set(synsets()))
        if not tars:
            raise OvertoneError(
                f"{source} holds neither images nor archives named like n01440764.tar; give ImageNet's archive or its "
                "folder of validation images"
            )
        for path in tars:
            with _archive(path) as archive:
                yield from _in_class_archive(archive, path.stem, str(path))


def _in_flat_folder(source: Path, labels: Path | None) -> Iterator[_Image]:
    found = images_in({"": source}, source)[""]
    names = [entry.name for entry in found]
    for entry, synset in zip(found, _classes_of(names, source, labels), strict=True):
        path = Path(entry.path)
        yield _Image(synset, path.name, path.stat().st_size, file=path)


def _in_archive(archive: tarfile.TarFile, source: Path, labels: Path | None) -> Iterator[_Image]:
    """Yield the images of an archive of images, of one class, or of archives of classes."""
    if source.stem in set(synsets()):
        yield from _in_class_archive(archive, source.stem, str(source))
        return
    members = _members(archive, str(source))
    if not any(member.name.endswith(".tar") for member in members):
        names = [_image_name(member, str(source)) for member in members]
        for member, name, synset in zip(members, names, _classes_of(names, source, labels), strict=True):
            yield _Image(synset, name, member.size, member=(archive, member))
        return
    for member in members:
        synset = PurePosixPath(member.name).stem
        if synset not in set(synsets()) or not member.name.endswith(".tar"):
            raise OvertoneError(
                f"{source} holds {member.name!r}, which is no class of ImageNet-1K; give ImageNet's archive"
            )
    for member in members:
        inner = archive.extractfile(member)
        assert inner is not None  # a regular file
        with inner, tarfile.open(fileobj=inner, mode="r:") as of_class:
            yield from _in_class_archive(of_class, PurePosixPath(member.name).stem, f"{source}: {member.name}")


def _in_class_archive(archive: tarfile.TarFile, synset: str, where: str) -> Iterator[_Image]:
    members = _members(archive, where)
    names = [_image_name(member, where) for member in members]
    for member, name in zip(members, names, strict=True):
        yield _Image(synset, name, member.size, member=(archive, member))


def _archive(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, mode="r:")  # uncompressed, as ImageNet's are: nothing can be larger than the file
    except tarfile.ReadError as error:
        raise OvertoneError(f"{path} is no uncompressed tar archive ({error}); give ImageNet's, unchanged") from error


def _members(archive: tarfile.TarFile, where: str) -> list[tarfile.TarInfo]:
    """Return the files of an archive, without folders.

    Raises:
        OvertoneError: a link, a device, or a name that leads elsewhere: before anything is unpacked.
    """
    files = [member for member in archive.getmembers() if not member.isdir()]
    for member in files:
        path = PurePosixPath(member.name)
        if not member.isfile() or member.issparse() or path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise OvertoneError(
                f"{where} holds {member.name!r}, which is a link, a device or a path that leads elsewhere; nothing "
                "of it is unpacked: give ImageNet's archive"
            )
    return files


def _image_name(member: tarfile.TarInfo, where: str) -> str:
    name = PurePosixPath(member.name).name
    if PurePosixPath(name).suffix.lower() not in SUFFIXES or name.startswith("."):
        raise OvertoneError(f"{where} holds {member.name!r}, which is no image; give ImageNet's archive")
    return name


def _classes_of(names: list[str], source: Path, labels: Path | None) -> list[str]:
    if labels is not None:
        return read_labels(labels).of(names)
    found = find_labels(*([source] if source.is_dir() else []), source.parent)
    if found is None:
        raise OvertoneError(
            f"{source} has no labels beside it; give the label file with --labels "
            "(LOC_val_solution.csv, ILSVRC2012_validation_ground_truth.txt, …)"
        )
    classes = read_labels(found).of(names)
    note(f"labels: {found}")
    return classes


# --- one image in its place


def _place(image: _Image, out: Path, how: str) -> bool:
    """Place an image under its final name; return False if it exists already.

    Raises:
        OvertoneError: another file has that name.
    """
    target = out / image.synset / image.name
    try:
        size = target.stat().st_size
    except FileNotFoundError:
        size = None
    if size is not None:
        if size != image.size:
            raise OvertoneError(
                f"{target} is there with {size} bytes where {image.name} has {image.size}; remove it, or choose "
                "another --out"
            )
        if how == "move" and image.file is not None and not target.samefile(image.file):
            image.file.unlink()  # an earlier call was interrupted between the copy and this
        return False
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_name(f".{image.name}{_TEMPORARY}")
    temporary.unlink(missing_ok=True)  # of a call that was killed; the lock excludes another one
    try:
        if image.member is not None:
            archive, member = image.member
            content = archive.extractfile(member)
            assert content is not None  # a regular file
            with content, temporary.open("wb") as file:
                _copy_whole(content, file, member)
        else:
            assert image.file is not None
            _bring(image.file, temporary, how)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if how == "move" and image.file is not None:
        image.file.unlink(missing_ok=True)
    return True


def _bring(source: Path, temporary: Path, how: str) -> None:
    """Create `temporary` by copy, by link, or (for a move) by a hard link where the disk allows it."""
    if how == "copy":
        shutil.copyfile(source, temporary)
        return
    try:
        os.link(source.resolve(), temporary)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        if how == "link":
            temporary.symlink_to(source.resolve())
        else:
            shutil.copyfile(source, temporary)


def _copy_whole(content: IO[bytes], file: IO[bytes], member: tarfile.TarInfo) -> None:
    shutil.copyfileobj(content, file)
    if file.tell() != member.size:
        raise tarfile.ReadError(f"{member.name} ends too early")


@contextlib.contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Hold the folder for this call alone; the lock ends with the process, however it ends.

    Raises:
        OvertoneError: another call holds it.
    """
    try:
        with FileLock(out / _LOCK, blocking=False):
            yield
    except Timeout as error:
        raise OvertoneError(f"another call is sorting images into {out}; wait for it") from error
