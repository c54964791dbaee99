"""Cache keys for results that are computed once and kept on disk: pictures, latents, identities, generated sets.

A key is a digest of
    the name and the version of the producer, and the versions of all producers whose results it uses;
    the configuration of the call;
    the fingerprints of the weights that it used.
Source code is not part of a key, so comments and formatting invalidate nothing. If a change of code changes the result
of a producer, raise its version; then everything that depends on it is computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = (".safetensors", ".json", ".onnx")  # the files of a folder that change what its networks compute


@dataclass(eq=False)
class Producer:
    """A computation whose results are kept, alone or as part of another result. It is declared beside its code.

    Attributes:
        name: what it makes; unique.
        version: raise it whenever the same inputs give another result.
        uses: the producers whose results it uses.
        data: the files that it reads; a change of their content changes `versions`.
    """

    name: str
    version: int
    uses: tuple[Producer, ...] = ()
    data: tuple[Path, ...] = ()

    @property
    def versions(self) -> dict[str, str]:
        """The versions of all producers that the result depends on, including this one, by name."""
        own = [str(self.version), *map(fingerprint, self.data)]
        known = {self.name: "-".join(own)}
        for producer in self.uses:
            known |= producer.versions
        return known


def key(producer: Producer, config: Mapping, *weights: str) -> str:
    """The key of one result.

    Args:
        producer: what makes it.
        config: everything else that the result depends on; must be serializable as JSON.
        weights: fingerprints of the networks that were used.
    """
    return digest(json.dumps([producer.name, producer.versions, config, weights], sort_keys=True).encode())


def fingerprint(path: Path) -> str:
    """The digest of a file's content, or of the names and contents of the weights and configurations in a folder."""
    if path.is_file():
        return digest(path.read_bytes())
    files = sorted(file for file in path.rglob("*") if file.suffix in WEIGHTS)
    return digest(*(part for file in files for part in (file.relative_to(path).as_posix().encode(), file.read_bytes())))


def digest(*parts: bytes) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the concatenated parts."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]
