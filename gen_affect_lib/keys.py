"""Keys of everything that is made once and kept on disk: rendered pictures, latents, identities, generated sets.

A key is a digest of
    the name and the version of the producer, and the versions of all producers whose results it uses;
    the configuration of this call;
    the fingerprints of the weights that it used.
Source code is not part of a key: comments and formatting invalidate nothing. Whoever changes what a producer makes
raises its version, and everything that depends on it is made again.
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
    """A step whose results are kept, or are part of something that is kept. Declared beside the code that does it.

    Attributes:
        name: what it makes; unique.
        version: raise it whenever the same inputs give another result.
        uses: the producers whose results it uses.
        data: the files that it reads; they count by their content.
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
        config: everything else that the result depends on, as JSON can hold it.
        weights: fingerprints of the networks that take part.
    """
    return digest(json.dumps([producer.name, producer.versions, config, weights], sort_keys=True).encode())


def fingerprint(path: Path) -> str:
    """The digest of a file's content, or of the names and contents of the weights and configurations in a folder."""
    if path.is_file():
        return digest(path.read_bytes())
    files = sorted(file for file in path.rglob("*") if file.suffix in WEIGHTS)
    return digest(*(part for file in files for part in (file.relative_to(path).as_posix().encode(), file.read_bytes())))


def digest(*parts: bytes) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of some bytes."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]
