"""INSTRUCTORS.md agrees with the kit: its figures, plans, exercises, commands and links."""

import re
import shlex

import nbformat
import pytest

from gen_affect_lib import doctor
from gen_affect_lib.cli import build_parser
from gen_affect_lib.course import notebooks, timings
from gen_affect_lib.course.checks import exercises
from gen_affect_lib.course.grading import grades
from gen_affect_lib.course.release import tables
from gen_affect_lib.evaluation.studies import variants
from gen_affect_lib.paths import ROOT

TEXT = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
FILES = {path.stem[:2]: path for path in notebooks()}
EXERCISES = {exercise.number: exercise for number in FILES for exercise in exercises(number)}
NUMBER = re.compile(r"(?<![\w.])(\d{1,2}\.\d{1,2})(?![\w.]*\w)")
PLANS = {"part": ("One session", 90), "day": ("One week", 5), "week": ("One semester", 14)}  # by their first column


def prose(text: str) -> str:
    """All but the table that is written from measurements, which holds other numbers with a point."""
    return text.partition(tables.BEGIN)[0] + text.partition(tables.END)[2]


def section(text: str, title: str) -> str:
    """From a heading to the next one of its level or a higher one."""
    level, rest = re.search(rf"(?m)^(##+) {re.escape(title)}.*\n((?:.*\n?)*)", text).groups()
    return re.split(rf"(?m)^#{{2,{len(level)}}} ", rest)[0]


def tables_in(text: str) -> list[list[dict[str, str]]]:
    """Each table as its rows, {head of the column: cell}."""
    found = []
    for block in re.findall(r"(?m)(?:^\|.*\|\n)+", text + "\n"):
        head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def asked(cell: str) -> list[str]:
    """ "1.3, 2.1–2.3" to 1.3, 2.1, 2.2, 2.3."""
    numbers = []
    for part in filter(None, map(str.strip, cell.split(","))):
        first, _, last = part.partition("–")
        notebook, start = first.split(".")
        end_notebook, end = (last or first).split(".")
        assert notebook == end_notebook, f"{part} spans two notebooks"
        numbers += [f"{notebook}.{k}" for k in range(int(start), int(end) + 1)]
    return numbers


def plans(text: str) -> dict[str, list[dict[str, str]]]:
    found = {next(iter(rows[0])): rows for rows in tables_in(section(text, "Plans"))}
    assert set(found) == set(PLANS)
    return found


def faults(text: str) -> list[str]:
    """All in the plans that does not agree with the exercises."""
    found = []
    for column, rows in plans(text).items():
        *rows, total = rows
        for row in rows:
            where = f"{column} {row[column]}"
            numbers, named = asked(row["exercises"]), re.findall(r"\[(\d\d)\]", row["notebooks"])
            found += [f"{where}: there is no exercise {number}" for number in numbers if number not in EXERCISES]
            found += [f"{where}: there is no notebook {name}" for name in named if name not in FILES]
            if {number.split(".")[0].zfill(2) for number in numbers} != set(named) - {"00"}:
                found.append(f"{where}: the exercises are not of the notebooks")
            minutes = sum(EXERCISES[number].minutes for number in numbers if number in EXERCISES)
            if minutes != int(row["minutes"]):
                found.append(f"{where}: {row['minutes']} minutes are said, and the exercises take {minutes}")
        if [row[column] for row in rows] != [str(k) for k in range(1, len(rows) + 1)] or total[
            column
        ] != "**together**":
            found.append(f"{column}: the rows are not numbered")
        for counted in ("minutes", "minutes of talk"):
            if counted in total and int(total[counted]) != sum(int(row[counted]) for row in rows):
                found.append(f"{column}: the {counted} together are {sum(int(row[counted]) for row in rows)}")
    return found


# --- the figures -----------------------------------------------------------------------------------------------------


def test_the_table_is_up_to_date():
    titles = {path.stem: tables.title_of(nbformat.read(path, 4)) for path in FILES.values()}
    table = tables.instructors_table(titles, {name: exercises(name) for name in titles}, timings.load())
    assert tables.replace_table(TEXT, table, "INSTRUCTORS.md") == TEXT, "run `make timings`"


@pytest.mark.parametrize("number", FILES)
def test_a_row_agrees_with_the_checks_and_the_measurements(number):
    (row,) = [
        row
        for row in tables_in(section(TEXT, "The notebooks in figures"))[0]
        if row["notebook"].startswith(f"[{number} ")
    ]
    own = [exercise for exercise in EXERCISES.values() if exercise.number.split(".")[0] == str(int(number))]
    assert int(row["exercises"]) == len(own)
    assert int(row["of them code"]) == len([exercise for exercise in own if exercise.kind in ("implement", "repair")])
    assert int(row["points"]) == sum(exercise.points for exercise in own)
    assert int(row["minutes of exercises"]) == sum(exercise.minutes for exercise in own)
    for size, measured in timings.load().items():
        known = measured["notebooks"].get(FILES[number].stem)
        if known is None:
            assert size == "gpu" and row[f"`{size}`"] == timings.UNKNOWN
            continue
        amount, unit, memory = re.fullmatch(r"(\d+) (s|min), (\d+\.\d) GB", row[f"`{size}`"]).groups()
        assert abs(int(amount) * (60 if unit == "min" else 1) - known["seconds"]) <= (30 if unit == "min" else 0.5)
        assert memory == f"{known['memory_gb']:.1f}"


def test_memory_is_that_of_the_largest_notebook():
    for size, measured in timings.load().items():
        most = max(known["memory_gb"] for known in measured["notebooks"].values())
        (said,) = re.findall(rf"(?m)^- `{size}`: .*at most (\d+\.\d) GB", TEXT)
        assert said == f"{most:.1f}"


def test_the_disk_space_is_that_of_the_doctor():
    assert f"{doctor.DISK_GB} GB of disk, as the doctor does" in TEXT


# --- the plans -------------------------------------------------------------------------------------------------------


def test_the_plans_agree_with_the_exercises():
    assert faults(TEXT) == []


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("| 1.3, 1.7 | 6 |", "| 1.3, 1.7 | 7 |", "part 2: 7 minutes are said, and the exercises take 6"),
        ("| 1.3, 1.7 | 6 |", "| 1.3, 1.9 | 6 |", "part 2: there is no exercise 1.9"),
        ("| 1.3, 1.7 | 6 |", "| 1.3, 2.1 | 6 |", "part 2: the exercises are not of the notebooks"),
        ("| 2.1–2.6 | 73 |", "| 2.1–2.5 | 73 |", "week 2: 73 minutes are said, and the exercises take 58"),
        ("| 54 | 36 |", "| 54 | 37 |", "part: the minutes of talk together are 36"),
        ("| 13 | Evaluation", "| 14 | Evaluation", "week: the rows are not numbered"),
    ],
)
def test_a_plan_that_does_not_agree_is_noticed(old, new, words):
    assert old in TEXT
    assert words in faults(TEXT.replace(old, new, 1))


def test_the_plans_are_as_long_as_their_titles_say():
    for column, (title, length) in PLANS.items():
        assert re.search(rf"(?m)^### {title}: {length} (minutes|days|weeks)$", TEXT), title
        *rows, total = plans(TEXT)[column]
        assert length == (int(total["minutes"]) + int(total["minutes of talk"]) if column == "part" else len(rows))


@pytest.mark.parametrize("column", ["day", "week"])
def test_the_long_plans_contain_every_exercise_once(column):
    assert [number for row in plans(TEXT)[column] for number in asked(row["exercises"])] == list(EXERCISES)


# --- what is named is there ------------------------------------------------------------------------------------------


def test_every_exercise_that_is_named_exists():
    named = NUMBER.findall(prose(TEXT))
    assert len(named) > 60 and set(named) <= set(EXERCISES), sorted(set(named) - set(EXERCISES))


def test_every_notebook_that_is_named_exists():
    text = prose(TEXT)
    named = re.findall(r"\b[Nn]otebooks? (\d\d)\b", text) + re.findall(r"--only (\d\d)\b", text)
    named += [number for pair in re.findall(r"(\d\d) to (\d\d)\b", text) for number in pair]
    assert len(named) >= 5 and set(named) <= set(FILES), named
    for pattern in re.findall(r"cp (\S+)", text):
        assert list(ROOT.glob(pattern)), pattern
    for number, target in re.findall(r"\[(\d\d)[^\]]*\]\((\S+)\)", TEXT):
        assert ROOT / target == FILES[number]


def test_every_link_leads_somewhere():
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"(?m)^##+ (.+)$", TEXT)}
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 40
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (ROOT / link).is_file(), link


def test_each_notebook_has_mistakes_to_expect():
    (rows,) = tables_in(section(TEXT, "Mistakes that you will meet"))
    found, notebook = {}, None
    for row in rows:
        if heading := re.fullmatch(r"\*\*(\d\d)\*\*", row["exercise"]):
            notebook = heading.group(1)
            continue
        assert row["exercise"] in EXERCISES and row["exercise"].split(".")[0].zfill(2) == notebook, row
        assert row["what students do"].startswith("They ") and row["what to say"].endswith((".", "?")), row
        found.setdefault(notebook, []).append(row["exercise"])
    assert list(found) == [number for number in FILES if exercises(number)]
    for numbers in found.values():
        assert len(numbers) >= 3 and numbers == sorted(set(numbers), key=lambda number: int(number.split(".")[1]))


def commands(text: str) -> list[str]:
    """Every command of the kit, in a block or within a line, without its remark."""
    return [re.split(r"\s+#", line)[0].strip() for line in re.findall(r"python -m gen_affect_lib ([^`\n]+)", text)]


def test_every_command_can_be_parsed():
    found = commands(TEXT)
    for needed in ("course student", "course validate", "course grade", "doctor"):
        assert any(command.startswith(needed) for command in found), needed
    for command in found:
        options = build_parser().parse_args(shlex.split(command))
        if command.startswith("compare"):
            assert options.only is None or set(options.only.split(",")) <= set(variants.TABLES[options.table])


def test_every_target_of_make_exists():
    rules = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    assert set(re.findall(r"`make ([a-z]+)", TEXT)) <= rules


def test_the_variables_are_those_that_the_kit_reads():
    read = set()
    for file in (ROOT / "gen_affect_lib").rglob("*.py"):
        read |= set(re.findall(r"environ(?:\.get\(|\[)\"(GEN_AFFECT_\w+)\"", file.read_text(encoding="utf-8")))
    (rows,) = tables_in(section(TEXT, "Many students on one machine"))
    assert {row["variable"].strip("`") for row in rows if "GEN_AFFECT" in row["variable"]} == read
    assert set(re.findall(r"GEN_AFFECT_\w+", TEXT)) == read
    for name, folder in (("CACHE", ".cache"), ("OUTPUTS", "outputs"), ("DATA", "data")):
        (row,) = [row for row in rows if row["variable"] == f"`GEN_AFFECT_{name}`"]
        assert f"By default `{folder}` in the clone" in row["what it is"]
        assert re.search(
            rf'(?m)^{name} = .*"GEN_AFFECT_{name}", ROOT / "{re.escape(folder)}"',
            (ROOT / "gen_affect_lib" / "paths.py").read_text(),
        )


def test_the_table_of_grades_is_described_as_it_is():
    (row,) = [
        row
        for row in tables_in(section(TEXT, "Hand out, collect, grade"))[0]
        if "grades.csv" in next(iter(row.values()))
    ]
    assert tuple(re.findall(r"`(\w+)`", row["content"])) == grades.COLUMNS
    words = [row["word"] for row in tables_in(section(TEXT, "What the points mean"))[0]]
    assert words == ["right", "wrong", "unfinished", grades.NOT_REACHED]


def test_nothing_in_it_is_about_one_machine():
    assert not re.search(r"(?<![\w.:/}])/(?:home|root|tmp|work|mnt|opt|usr|var|Users|data)/\w|\b[A-Z]:\\\w", TEXT)
    assert not re.search(r"https?://(?!arxiv)", TEXT), "a lecture hall may have no network"


def test_the_lines_can_be_read_in_an_editor():
    inside = False
    for line in TEXT.splitlines():
        inside = line.startswith("```") != inside
        if not line.startswith("|") and not inside and not line.startswith(("- `smoke`", "- `laptop`", "- `gpu`")):
            assert len(line) <= 140, line
