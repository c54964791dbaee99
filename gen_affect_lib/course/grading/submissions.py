"""Finds what was handed in, and reads it. A submission may be any file.

Every notebook in the folder is a submission, in archives too. Nothing is left out in silence: a file or a folder in
which there is nothing to grade becomes a submission that is refused, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OTHER_ARCHIVES = (".7z", ".rar", ".gz")
LARGEST, LARGEST_ARCHIVE = 100 * 2**20, 500 * 2**20  # bytes of a notebook's file, and of all that an archive contains
MOST_FILES = 5_000  # in one archive
LARGEST_HELPER = 2**20  # bytes of a module beside a notebook
LONGEST_NAME = 100  # characters
_LINK = "it is a link, which is not followed: hand in the file itself"


@dataclass(frozen=True)
class Submission:
    """A file or folder that was handed in.

    name: its path in the folder without .ipynb, unique and at most `LONGEST_NAME` characters. path: where it can be
    read, in the folder or where an archive was unpacked. refused: why it cannot be graded; empty for a notebook.
    """

    name: str
    path: Path
    refused: str = ""


def find(folder: Path, unpacked: Path) -> list[Submission]:
    """Everything that was handed in, ordered by name.

    unpacked: an empty folder outside of `folder`, into which archives are unpacked. Links are not followed: they could
    lead to the files of another student. Jupyter's checkpoints and hidden files are no submissions of their own.
    """
    found = list(_walk(folder, PurePosixPath(), unpacked, 0))
    names = _unique([name_of(one.name) for one in found])
    return sorted((replace(one, name=name) for one, name in zip(found, names)), key=lambda one: one.name)


def _walk(folder: Path, place: PurePosixPath, unpacked: Path, depth: int) -> Iterator[Submission]:
    """The submissions in a folder. place: its path as the names show it."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Submission(str(place), folder, f"the folder cannot be read: {error.strerror}")
        return
    shown = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    links = [entry for entry in shown if entry.is_symlink()]
    folders = [entry for entry in shown if entry not in links and entry.is_dir(follow_symlinks=False)]
    files = [entry for entry in shown if entry not in links and entry not in folders]
    own = [entry for entry in files if ".ipynb" in entry.name.lower()]
    for entry in links:
        yield Submission(str(place / entry.name), folder, _LINK)
    for entry in own:
        yield Submission(str(place / entry.name), Path(entry.path), _unreadable(entry))
    others = [entry for entry in files if entry not in own]
    for entry in others:
        if entry.name.lower().endswith(ARCHIVES) and entry.is_file():
            yield from _archive(Path(entry.path), place / entry.name, unpacked, depth)
        elif len(own) != 1 or not place.parts:  # beside a single notebook it belongs to that
            if own or links or folders or not place.parts:
                yield Submission(str(place / entry.name), Path(entry.path), _not_a_notebook(entry.name))
    for entry in folders:
        inside = list(_walk(Path(entry.path), place / entry.name, unpacked, depth))
        if (
            len(own) == 1
            and place.parts
            and all(one.refused for one in inside)
            and not any(one.path.suffix for one in inside)
        ):
            continue  # a folder of data beside a notebook
        yield from inside
    if not (links or own or folders) and not any(entry.name.lower().endswith(ARCHIVES) for entry in others):
        if place.parts:
            yield Submission(str(place), folder, _no_notebook(folder, [entry.name for entry in others]))


def _unreadable(entry: os.DirEntry) -> str:
    if not entry.is_file():
        return "it is no file"
    return "" if entry.stat().st_size <= LARGEST else f"the file is larger than {LARGEST >> 20} MB"


def _not_a_notebook(name: str) -> str:
    if name.lower().endswith(OTHER_ARCHIVES):
        return "this archive cannot be unpacked here: hand in the .ipynb file, or a .zip"
    return f"a {Path(name).suffix or 'file'} is no notebook: hand in the .ipynb file"


def _no_notebook(folder: Path, names: list[str]) -> str:
    checkpoints = [path.name for path in (folder / ".ipynb_checkpoints").glob("*.ipynb")]
    if checkpoints:
        return f"the folder has only Jupyter's own copy, .ipynb_checkpoints/{checkpoints[0]}: hand in the notebook"
    if names:
        return f"the folder has no notebook, only {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"
    return "the folder is empty"


def _archive(path: Path, place: PurePosixPath, unpacked: Path, depth: int) -> Iterator[Submission]:
    """The submissions in an archive, which is unpacked first; the archive itself if there are none."""
    target = unpacked / f"{len(list(unpacked.iterdir()))}"
    target.mkdir()
    try:
        if depth > 2:
            raise UserError("there are archives in archives in archives: hand in the .ipynb file")
        links = unpack(path, target)
    except UserError as error:
        yield Submission(str(place), path, str(error))
        return
    inside = list(_walk(target, place, unpacked, depth + 1))
    yield from (Submission(str(place / link), path, _LINK) for link in links)
    if any(not one.refused for one in inside):
        yield from (one for one in inside if not one.refused or one.name != str(place))
    elif not links:
        yield Submission(str(place), path, "the archive contains no notebook: hand in the .ipynb file")


def unpack(path: Path, target: Path) -> list[str]:
    """Unpack the regular files of an archive into a folder, nothing outside of it; return the names of its links.

    Raises UserError if the archive is damaged, has a password, or is too large.
    """
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                everything = [info for info in archive.infolist() if not info.is_dir()]
                links = [info.filename for info in everything if info.external_attr >> 28 == 0o12]  # Unix' mode
                files = [info for info in everything if info.external_attr >> 28 in (0, 0o10)]
                dated = [(info.filename, info.file_size, _seconds(info.date_time), info) for info in files]
                _extract(dated, target, archive.open)
        else:
            with tarfile.open(path) as archive:
                links = [info.name for info in archive.getmembers() if info.issym() or info.islnk()]
                files = [info for info in archive.getmembers() if info.isfile()]
                dated = [(info.name, info.size, info.mtime, info) for info in files]
                _extract(dated, target, archive.extractfile)
    except UserError:
        raise
    except RuntimeError as error:  # of `zipfile`, for a password
        raise UserError("the archive has a password: hand in the .ipynb file") from error
    except Exception as error:  # a damaged archive can raise almost anything
        raise UserError("the archive is damaged: hand in the .ipynb file") from error
    return [_writable(name) for name in links]


def _seconds(date: tuple) -> float:
    """The time of a file in a zip archive, which is local time, in seconds since 1970."""
    try:
        return datetime(*date).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _extract(members: list[tuple[str, int, float, Any]], target: Path, opened: Callable[[Any], Any]) -> None:
    """Write members (name, bytes, time, entry) into a folder. opened: a function that opens an entry."""
    if len(members) > MOST_FILES or sum(size for _, size, _, _ in members) > LARGEST_ARCHIVE:
        raise UserError(f"the archive has over {MOST_FILES} files or {LARGEST_ARCHIVE >> 20} MB: hand in the notebook")
    for name, size, seconds, entry in members:
        parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..") and ":" not in part]
        if not parts:
            continue
        file = target.joinpath(*(_short(_writable(part)) for part in parts))
        file.parent.mkdir(parents=True, exist_ok=True)
        with opened(entry) as stream, file.open("wb") as out:
            out.write(stream.read(size))  # never more than was declared
        os.utime(file, (seconds, seconds))  # when it was handed in


# --- names -----------------------------------------------------------------------------------------------------------


def name_of(place: str) -> str:
    """The name of a submission: its path in the folder, without .ipynb and without what a terminal cannot show."""
    name = place[: -len(".ipynb")] if place.lower().endswith(".ipynb") else place
    return _short(re.sub(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", "?", _writable(name)))


def _short(name: str, longest: int = LONGEST_NAME) -> str:
    """The name, or its beginning, end and digest."""
    if len(name) <= longest:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: longest // 2]}…{digest}…{name[-(longest // 2 - 10) :]}"


def _unique(names: list[str]) -> list[str]:
    """The names with a number after those that occurred before, in capitals or not: files have these names, too."""
    seen: set[str] = set()
    unique = []
    for name in names:
        number, one = 1, name
        while one.casefold() in seen:
            number += 1
            one = f"{name} ({number})"
        seen.add(one.casefold())
        unique.append(one)
    return unique


def page_name(name: str) -> str:
    """The file name of a submission's page, without .html: one that every file system can have.

    Different submissions have different pages: a name that had to be changed ends in a digest.
    """
    joined = name.replace("/", "__")
    plain = re.sub(r'[<>:"|?*\\\x00-\x1f]', "_", joined).strip(". ")
    plain = plain.encode()[:120].decode(errors="ignore").strip(". ")
    if (
        plain == joined
        and "__" not in name
        and not re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", plain.partition(".")[0])
    ):
        return plain
    return f"{plain} {hashlib.sha256(name.encode()).hexdigest()[:6]}".strip()


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict]:
    """The cells of a notebook's file, in the current format or an older one. Raises UserError if it is no notebook.

    nbformat is not used, because it refuses some files whose cells can be run.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError("the file is no notebook, or only a part of one") from error
    content = content if isinstance(content, dict) else {}
    sheets = content.get("worksheets")  # format 3
    sheets = [sheet for sheet in sheets if isinstance(sheet, dict)] if isinstance(sheets, list) else []
    cells = content.get("cells", [cell for sheet in sheets for cell in sheet.get("cells", ())])
    cells = [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []
    if not cells:
        raise UserError("the file contains no cells")
    return cells


def code_cells(cells: list[dict]) -> list[dict]:
    """The code cells that are not empty, for `sandbox.run`: [{"number": as after a run from the top, "source": …}]."""
    sources = [_source(cell) for cell in cells if cell.get("cell_type") == "code"]
    return [{"number": number, "source": source} for number, source in enumerate(filter(str.strip, sources), 1)]


def belongs_to(cells: list[dict], file_name: str) -> str:
    """The number of the notebook that a submission is a copy of, such as "02".

    It is found by nbgrader's marks, by the checks that the cells import or call, or by the name of the file. Raises
    UserError if none of these identifies it.
    """
    owners = {
        f"{prefix}{exercise.name}": path.stem[:2]
        for path in notebooks()
        for exercise in exercises(path.stem)
        for prefix in ("", "check_")
    }
    metadata = [cell.get("metadata") for cell in cells]
    marks = [one.get("nbgrader") for one in metadata if isinstance(one, dict)]
    grade_ids = [str(mark.get("grade_id")) for mark in marks if isinstance(mark, dict)]
    marked = [owners[grade_id] for grade_id in grade_ids if grade_id in owners]
    text = "\n".join(map(_source, cells))
    imported = re.findall(r"gen_affect_lib\.course\.checks(?:\.notebook)?_(\d\d)", text)
    called = [owners[name] for name in re.findall(r"\b(check_\w+)\s*\(", text) if name in owners]
    named = [path.stem[:2] for path in notebooks() if path.stem in file_name.lower()]
    named = named or re.findall(r"^(\d\d)(?!\d)", file_name)
    for found in (marked, imported, called, named):
        known = Counter(number for number in found if number in owners.values())
        if known:
            return known.most_common(1)[0][0]
    raise UserError("the file is none of the notebooks with exercises")


@cache
def _numbers(folder: Path) -> tuple[str, ...]:
    """Which notebooks of the course those in a folder are."""
    numbers = []
    for path in folder.iterdir():
        if ".ipynb" in path.name.lower() and path.is_file() and not path.is_symlink():
            try:
                numbers.append(belongs_to(read(path), path.name))
            except UserError:
                continue
    return tuple(numbers)


def helpers(path: Path) -> dict[str, Path]:
    """{name: path} of the modules that stand beside a notebook, and which it may import.

    Empty if the folder has two copies of one notebook: then it is not the folder of one student.
    """
    beside = [file for file in sorted(path.parent.glob("*.py")) if file.is_file() and not file.is_symlink()]
    beside = [file for file in beside if file.stem.isidentifier() and file.stat().st_size <= LARGEST_HELPER]
    if not beside:
        return {}
    numbers = _numbers(path.parent)
    return {} if len(set(numbers)) < len(numbers) else {file.name: file for file in beside}


def _source(cell: dict) -> str:
    text = cell.get("source", cell.get("input", ""))  # format 3 has "input"
    if isinstance(text, list):
        text = "".join(part for part in text if isinstance(part, str))
    return _writable(text) if isinstance(text, str) else ""


def _writable(text: str) -> str:
    """Replace surrogates, which broken files and file names from other systems may contain, by question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")
