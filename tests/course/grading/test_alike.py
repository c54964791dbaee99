"""Answers that are nearly identical are listed, and the kit's own text makes none."""

from gen_affect_lib.course import notebooks
from gen_affect_lib.course.grading import submissions
from gen_affect_lib.course.grading.alike import kit_lines, own_tokens, pairs
from gen_affect_lib.course.grading.grades import Grade
from gen_affect_lib.course.grading.sandbox import Outcome

LOOP = """def unpatchify(patches, height, width, patch_size):
    p = patch_size
    result = torch.zeros(len(patches), patches.shape[2] // p // p, height, width)
    for row in range(height // p):
        for column in range(width // p):
            one = patches[:, row * (width // p) + column].reshape(len(patches), p, p, -1)  # one patch
            result[:, :, row * p : row * p + p, column * p : column * p + p] = one.permute(0, 3, 1, 2)
    return result
"""
EINSUM = """def unpatchify(patches, height, width, patch_size):
    h, w = height // patch_size, width // patch_size
    x = patches.view(len(patches), h, w, patch_size, patch_size, -1)
    together = torch.einsum("bhwijk->bkhiwj", x).contiguous()
    return together.view(len(patches), -1, h * patch_size, w * patch_size)
"""


def grade(name, code):
    return Grade(name, "02_patches", Outcome({"unpatchify": {"state": "right", "message": "", "code": code}}))


def test_copies_are_listed_with_other_names_and_comments_too():
    copy = LOOP.replace("row", "i").replace("column", "j").replace("result", "out").replace("  # one patch", "")
    _, *found = pairs([grade("ada", LOOP), grade("bob", "# mine\n" + copy), grade("cy", EINSUM), grade("di", "")])
    ((first, second, exercise, percent, tokens),) = found
    assert (first, second, exercise, percent) == ("ada", "bob", "2.2 unpatchify", "100") and int(tokens) > 100


def test_different_answers_are_not():
    assert len(pairs([grade("ada", LOOP), grade("cy", EINSUM)])) == 1


def test_the_kits_solution_is_nobodys():
    (path,) = notebooks("02")
    cells = submissions.code_cells(submissions.read(path))
    solution = next(cell["source"] for cell in cells if "def unpatchify" in cell["source"])
    assert own_tokens(solution, kit_lines("02_patches")) == []
    assert len(pairs([grade("ada", solution), grade("bob", solution)])) == 1


def test_code_that_cannot_be_read_is_compared_as_far_as_it_can():
    assert own_tokens("x = (1,\n", ()) == ["name0", "=", "(", "1", ","]
