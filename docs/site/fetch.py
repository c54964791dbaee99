"""Two JavaScript libraries that the site serves itself, fetched once with npm: ONNX Runtime Web and MathJax."""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from gen_affect_lib.errors import UserError
from gen_affect_lib.files import together


class Package(NamedTuple):
    """An npm package: the files that the site needs, and its checksum as npm states it (`dist.integrity`)."""

    name: str
    version: str
    license: str
    files: tuple[str, ...]
    integrity: str


RUNTIME = Package(
    "onnxruntime-web",
    "1.27.0",
    "MIT license, Copyright (c) Microsoft Corporation",
    ("dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm"),
    "sha512-ogDLsqIozHZwifPuN37OproAo0byX6t43/bP8GzeZWBWD6MOGExswFAx3up4NS/vvWBOg2u2PXomDt3rMmdQSg==",
)
MATHJAX = Package(
    "mathjax",
    "3.2.2",
    "Apache License 2.0, Copyright (c) The MathJax Consortium",
    ("es5/tex-svg.js",),
    "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
)


def fetched(package: Package, cache: Path) -> Path:
    """The folder with the files of a package, fetched if the cache does not have them.

    Raises UserError without npm or a connection, and if the package is not the one that was tested.
    """
    folder = cache / f"{package.name}-{package.version}"
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as place:
        archive = _pack(package, Path(place))
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != package.integrity:
            raise UserError(f"{package.name} {package.version} has another checksum than expected: try again later")
        with together(folder) as partial, tarfile.open(archive) as tar:
            for name in package.files:
                source = tar.extractfile(f"package/{name}")
                assert source is not None
                (partial / Path(name).name).write_bytes(source.read())
            notice = f"{package.name} {package.version}\n{package.license}\n"
            (partial / "NOTICE.txt").write_text(notice)
    return folder


def _pack(package: Package, place: Path) -> Path:
    """The archive of a package, by `npm pack`; npm comes from the system, or with pyright from .venv."""
    beside = Path(sys.executable).with_name("npm")
    npm = shutil.which("npm") or (str(beside) if beside.exists() else None)
    what = f"{package.name} {package.version}"
    if npm is None:
        raise UserError(f"npm, which fetches {what}, was not found: install Node.js, and run make site again")
    command = [npm, "pack", "--silent", f"{package.name}@{package.version}"]
    result = subprocess.run(command, cwd=place, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    archives = list(place.glob("*.tgz"))
    if result.returncode or not archives:
        raise UserError(
            f"{what} could not be fetched: the first `make site` needs a connection, later ones do not "
            f"({' '.join(result.stderr.split())[-200:]})"
        )
    return archives[0]
