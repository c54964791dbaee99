"""Atomic writing: a file is written completely or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix in the same folder, and rename it to `path` when the block succeeds.

    An interrupted or failed block leaves `path` as it was. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, content: object) -> None:
    """Write `content` as JSON, indented by 1 space, atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")
