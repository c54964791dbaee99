"""The map of the course (`notebooks/README.md`) leads where it says."""

import inspect
import re
from importlib import import_module

import nbformat
import pytest

from gen_affect_lib import codec, flow, model
from gen_affect_lib.course import notebooks
from gen_affect_lib.paths import NOTEBOOKS, ROOT
from gen_affect_lib.training import codec as codec_training
from gen_affect_lib.training import optim

TEXT = (NOTEBOOKS / "README.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (?P<claim>.+?) \| `(?P<dotted>gen_affect_lib[\w.]+)`(?: \(here `(?P<here>[^`]+)`\))? "
    r"\| \[(?P<number>\d\d), “(?P<title>[^”]+)”\]\((?P<file>[\w.]+)#cell-id=(?P<cell>[\w-]+)\) \|$",
    re.M,
)
TERM = re.compile(r"^\| (?P<term>[^|`]+?) \| (?P<meaning>[^|]+) \| \[(?P<number>\d\d)\]\((?P<file>[\w.]+)\) \|$", re.M)
NEIGHBOURS = 3  # cells before and after the linked one that may hold the function
PARTS = ("attention", "consistent", "fusion", "mmdit", "modulation", "patches", "refiner", "sd35")

HELPERS = {  # public, and not on the map: why
    "model.attention.head_norm": "chooses between RMSNorm and none",
    "model.attention.JointAttention": "the type of joint_attention and of what stands in its place",
    "model.attention.condition_attention": "the condition's half of joint attention, which joint attention teaches",
    "model.consistent.as_consistency": "turns the pipeline's argument into a Consistency",
    "model.consistent.Replace": "the option `replace` of Consistency",
    "model.consistent.SharedStep": "one step of an AnchorBank, whose record and read are on the map",
    "model.consistent.portrait_tokens": "face_tokens in the centred square of a rectangle",
    "model.mmdit.attention_among": "finds the attention in what diffusers' pipelines pass on",
    "model.sd35.sd35_large": "the MMDiT with published sizes",
    "model.refiner.ModulatedResidual": "a residual block with FiLM, the adaptive norm of 03 on convolutions",
    "model.sd35.image_tokens": "pixels of a picture to tokens",
    "model.sd35.table_of_sets": "arithmetic of the memory of a set",
    "model.mmdit.common_sigma": "the sigma that a JointAttention gets, from the timesteps",
    "model.mmdit.DualStream": "Stable Diffusion 3.5's second attention, kept for parity with diffusers",
    "training.optim.adamw": "torch's AdamW with the course's groups of parameters",
    "training.optim.make_optimizers": "chooses by a setting which optimizer gets which parameters",
    "training.optim.orthogonalized": "the arithmetic inside of Muon",
    "training.optim.learning_rate": "warm_cosine times the recipe's learning rate",
    "codec.GroupNormResidual": "a block of the autoencoder, as in any ResNet",
    "codec.Latents": "the type of a codec's latents",
    "training.codec.fit_codec": "trains the autoencoder by the loop of all trainings",
    "training.codec.fit_pictures": "what fit_codec and fit_decoder share",
    "training.codec.fit_whole": "what fit_codec and fit_kl_codec share",
}


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def table_lines(title: str) -> list[str]:
    """The rows of a section's tables, heads and rules left out."""
    heads = ("| equation or claim ", "| term ", "| --- ")
    return [line for line in section(title).splitlines() if line.startswith("|") and not line.startswith(heads)]


ENTRIES = list(ROW.finditer(section("The map")))
TERMS = list(TERM.finditer(section("Glossary")))


@pytest.fixture(scope="module")
def sources():
    """For each notebook's number its cells, (id, source)."""
    return {
        path.stem[:2]: [(cell.id, cell.source) for cell in nbformat.read(path, as_version=4).cells]
        for path in notebooks()
    }


def resolve(dotted: str):
    """What a dotted name stands for. Raises where there is nothing of that name."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(dotted)


def says(text: str, words: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.I))


def test_every_line_of_the_tables_is_understood():
    assert [match.group() for match in ENTRIES] == table_lines("The map")
    assert [match.group() for match in TERMS] == table_lines("Glossary")
    assert len(ENTRIES) >= 80 and len(TERMS) >= 40


@pytest.mark.parametrize("dotted", sorted({match["dotted"] for match in ENTRIES}))
def test_each_function_is_there(dotted):
    assert callable(resolve(dotted))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['dotted'].rpartition('.')[2]}-{entry['cell']}")
def test_each_link_leads_to_a_cell_that_teaches_it(entry, sources):
    assert entry["file"].startswith(entry["number"]) and (NOTEBOOKS / entry["file"]).is_file()
    cells = sources[entry["number"]]
    place = [cell for cell, _ in cells].index(entry["cell"])
    around = "\n".join(source for _, source in cells[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1])
    wanted = entry["here"] or entry["dotted"].rpartition(".")[2]
    if entry["here"]:
        assert says(around, wanted), f"neither by hand nor in words: {wanted}"
    else:
        assert re.search(rf"\b{wanted}\b", around), f"{wanted} is not near {entry['cell']}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['dotted'].rpartition('.')[2]}-{entry['cell']}")
def test_each_title_stands_above_its_cell(entry, sources):
    cells = sources[entry["number"]]
    place = [cell for cell, _ in cells].index(entry["cell"])
    assert says("\n".join(source for _, source in cells[: place + 1]), entry["title"])


def test_every_notebook_is_on_the_map():
    assert {match["number"] for match in ENTRIES} == {path.stem[:2] for path in notebooks()} - {
        "00"
    }  # 00 shows, and builds nothing


def test_every_public_part_is_on_the_map_or_a_helper():
    modules = [*(import_module(f"{model.__name__}.{name}") for name in PARTS), flow, optim, codec, codec_training]
    public = {
        f"{module.__name__}.{name}"
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }
    mapped = {match["dotted"] for match in ENTRIES}
    helpers = {f"gen_affect_lib.{name}" for name in HELPERS}
    assert public - mapped - helpers == set(), "neither on the map nor among the helpers"
    assert helpers <= public and not helpers & mapped, "a helper that is gone, or that is on the map"


def test_no_part_of_the_model_is_forgotten():
    assert {path.stem for path in (ROOT / "gen_affect_lib" / "model").glob("[a-z]*.py")} == set(PARTS)


def test_the_three_claims_are_on_the_map():
    assert [
        match["claim"][:3] for match in ENTRIES if match["claim"].startswith("(") and match["claim"][2:3] == ")"
    ] == ["(a)", "(b)", "(c)"]


def test_the_glossary_is_in_order():
    terms = [match["term"].lower() for match in TERMS]
    assert terms == sorted(terms) and len(set(terms)) == len(terms)


@pytest.mark.parametrize("entry", TERMS, ids=lambda entry: entry["term"])
def test_each_term_occurs_where_it_is_explained(entry, sources):
    assert entry["file"].startswith(entry["number"]) and (NOTEBOOKS / entry["file"]).is_file()
    assert entry["meaning"].count(". ") == 0, "one sentence"
    term = re.sub(r" \(.*\)$", "", entry["term"])
    assert says("\n".join(source for _, source in sources[entry["number"]]), term)


def test_what_to_read_is_cited_in_its_notebook_or_in_the_library(sources):
    library = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "gen_affect_lib").rglob("*.py")))
    number, seen = None, 0
    for line in section("What to read next").splitlines():
        if heading := re.match(r"\*\*\[(\d\d)\]\(([\w.]+)\)\*\*$", line):
            number = heading[1]
            assert heading[2].startswith(number) and (NOTEBOOKS / heading[2]).is_file()
        elif line.startswith("- "):
            seen += 1
            cited = "\n".join(source for _, source in sources[number]) + library
            author = re.match(r"- ([^\W\d_]+)", line)[1]
            arxiv = re.findall(r"\b\d{4}\.\d{4,5}\b", line)
            assert says(cited, author), f"{author} is not cited in {number}"
            assert all(one in cited for one in arxiv) and len(arxiv) <= 1, line
    assert seen >= 20


def test_every_arxiv_number_of_the_notebooks_is_in_the_reading_list(sources):
    cited = {
        one
        for cells in sources.values()
        for _, source in cells
        for one in re.findall(r"arXiv:? ?(\d{4}\.\d{4,5})\b", source)
    }
    assert cited <= set(re.findall(r"arXiv (\d{4}\.\d{4,5})\b", section("What to read next")))
