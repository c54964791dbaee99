"""Builds the site: the notebooks as pages, the map, the API, the cheat sheet and the playground.

    make site                               # into outputs/site
    make site REPO=owner/name BRANCH=main   # with links to Colab, Binder and the sources of that repository
    make site SOLUTIONS=no                  # without the solutions of exercises

Nothing is executed: the pages show the outputs that the notebooks hold. The first build fetches two JavaScript
libraries; later ones need no network.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fetch import MATHJAX, RUNTIME, fetched  # noqa: E402
from pages import Repository, write_pages  # noqa: E402
from people import write_people  # noqa: E402

from gen_affect_lib import export  # noqa: E402
from gen_affect_lib.errors import UserError  # noqa: E402
from gen_affect_lib.files import together  # noqa: E402
from gen_affect_lib.keys import digest  # noqa: E402
from gen_affect_lib.paths import CACHE, OUTPUTS, REFERENCE, SHIPPED  # noqa: E402
from gen_affect_lib.pipeline import GenAffectPipeline  # noqa: E402

HERE = Path(__file__).parent
BY_HAND = ("index.md", "playground.md", "cheat_sheet.md")  # pages.py makes run.md from the other texts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUTPUTS / "site")
    parser.add_argument("--repo", default="", metavar="OWNER/NAME", help="the repository of your fork")
    parser.add_argument("--branch", default="main", help="its branch")
    parser.add_argument("--solutions", choices=("yes", "no"), default="yes", help="folded solutions of the exercises")
    options = parser.parse_args(arguments)
    try:
        write_course(options.out, CACHE / "site", Repository(options.repo, options.branch), options.solutions == "yes")
        write_playground(options.out / "playground", CACHE / "site")
        print_sheet(options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"The site is in {options.out}. To see it: python -m http.server --directory {options.out}")
    return 0


def write_course(folder: Path, cache: Path, repository: Repository, solutions: bool) -> None:
    """The pages, with Sphinx. Raises UserError if it warns: of a link that leads nowhere, for example."""
    mathjax = fetched(MATHJAX, cache)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place)
        for file in (*(HERE / "text" / name for name in BY_HAND), HERE / "conf.py"):
            shutil.copy(file, source)
        write_pages(source, repository, solutions)
        static = source / "_static"
        shutil.copy(HERE / "text" / "site.css", static)
        shutil.copy(REFERENCE / "expressions.png", static)
        shutil.copytree(mathjax, static / "mathjax")
        shutil.rmtree(folder, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "sphinx",
            "--quiet",
            "--fail-on-warning",
            "--keep-going",
            "-d",
            str(source / "_trees"),
        ]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        if subprocess.run([*command, str(source), str(folder)], env=environment).returncode:
            raise UserError("Sphinx warns about the pages, see above")
    shutil.copy(HERE / "sheet.html", folder)
    for template in folder.rglob("*webpack-macros.html"):  # the themes copy them, and no page uses them
        template.unlink()


def print_sheet(folder: Path) -> None:
    """cheat_sheet.pdf from sheet.html, if Chromium and playwright are here; otherwise readers print the page."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None or find_spec("playwright") is None:
        print(
            "cheat_sheet.pdf is left out: Chromium or playwright is not installed; sheet.html prints from any browser"
        )
        return
    from playwright.sync_api import sync_playwright

    sandbox = [] if getattr(os, "getuid", lambda: 1)() else ["--no-sandbox"]  # root's Chromium has none
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=sandbox)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto((folder / "sheet.html").resolve().as_uri())
        page.wait_for_function("!!window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        page.pdf(path=folder / "cheat_sheet.pdf", prefer_css_page_size=True, print_background=True)
        browser.close()


def write_playground(folder: Path, cache: Path) -> None:
    """The playground: its page, ONNX Runtime Web, the exported model and the people."""
    runtime, model = fetched(RUNTIME, cache), exported_model(cache)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "playground", folder)
    shutil.copytree(runtime, folder / "ort")
    shutil.copytree(model, folder, dirs_exist_ok=True)


def exported_model(cache: Path) -> Path:
    """The folders `model` and `people`, made once for a checkpoint and the code that exports it."""
    sources = Path(export.__file__), HERE / "people.py", *sorted(SHIPPED.rglob("*.safetensors"))
    folder = cache / f"model-{digest(*(source.read_bytes() for source in sources))}"
    if not folder.is_dir():
        print("Exporting the model, once; this takes a minute or two.", flush=True)
        pipeline = GenAffectPipeline.from_pretrained(SHIPPED)
        with together(folder) as partial:
            export.export_onnx(pipeline, partial / "model")
            write_people(pipeline, partial / "people")
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
