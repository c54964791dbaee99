"""What only cheats write. It takes no points: it names a cell that a person should look at."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator

_MODULES = {"gc", "ctypes", "cffi", "socket", "zmq", "subprocess", "multiprocessing", "pty", "mmap"}
_NAMES = {
    *("_getframe", "currentframe", "f_back", "f_locals", "f_globals", "getsource", "getsourcelines", "getsourcefile"),
    *("__closure__", "cell_contents", "__code__", "__globals__", "__subclasses__", "get_referrers", "get_objects"),
    *("setprofile", "settrace", "addaudithook", "_exit", "fork", "kill", "killpg", "getppid", "SourceFileLoader"),
}
_CALLED = {"exec", "eval", "compile", "__import__"}
_TEXT = re.compile(r"/proc/|grades\.csv|checks[./]notebook_|course[./]grading")
_NUMBERS = {"float", "int", "str", "complex", "bool"}
_COMPARES = {"__eq__", "__ne__", "__sub__", "__rsub__", "__lt__", "__gt__", "__le__", "__ge__", "__abs__", "__float__"}


def found(cells: Iterable[dict], own: Collection[str] = ()) -> list[str]:
    """One line for each cell with something that only cheats write: cells as for `sandbox.run`.

    own: the sources of the kit's own cells, which are passed over.
    """
    lines = []
    for cell in cells:
        if cell["source"] in own:
            continue
        try:
            tree = ast.parse(re.sub(r"(?m)^(\s*)[%!?]", r"\1#", cell["source"]))
        except (SyntaxError, ValueError, RecursionError):
            continue
        if words := list(dict.fromkeys(_words(tree))):
            lines.append(f"{_place(cell)}: {', '.join(words[:4])}")
    return lines


def _place(cell: dict) -> str:
    return f"cell [{cell['number']}]" if isinstance(cell["number"], int) else str(cell["number"])


def _words(tree: ast.AST) -> Iterator[str]:
    kits: set[str] = set()  # names of the kit's modules and components
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from _imported(node)
            module = getattr(node, "module", None) or ""
            kits |= {alias.asname or alias.name for alias in node.names if "gen_affect_lib" in f"{module} {alias.name}"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root = _root(node)
            if node.attr in _NAMES:
                yield f"`{node.attr}`"
            elif node.attr in ("reference", "solution", "test", "__dict__", "judge") and root.startswith("check_"):
                yield f"`{root}.{node.attr}`"
            elif node.attr == "modules" and root == "sys" or node.attr == "__file__" and root in kits:
                yield f"`{root}.{node.attr}`"
            elif isinstance(node.ctx, ast.Store) and root in kits:
                yield f"changes the kit's `{root}.{node.attr}`"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            first = _root(node.args[0]) if node.args else ""
            if node.func.id in _CALLED:
                yield f"`{node.func.id}`"
            elif node.func.id in ("getattr", "setattr", "vars", "dir") and (
                first.startswith("check_") or first in kits
            ):
                yield f"`{node.func.id}({first}, …)`"
        elif isinstance(node, ast.ClassDef):
            own = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
            if _NUMBERS & {_root(base) for base in node.bases} and _COMPARES & own:
                yield f"a number or text that compares as it likes, `{node.name}`"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (text := _TEXT.search(node.value)):
            yield f"'{text[0]}'"


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    for module in modules:
        if module.partition(".")[0] in _MODULES:
            yield f"`import {module}`"
        parts = module.split(".")
        if parts[:3] == ["gen_affect_lib", "course", "grading"]:
            yield f"`{module}`"
        if parts[:3] == ["gen_affect_lib", "course", "checks"] and not parts[-1].startswith("notebook_"):
            yield f"`{module}`"
    for alias in node.names if isinstance(node, ast.ImportFrom) else ():
        if alias.name in _NAMES:
            yield f"`{alias.name}`"


def _root(node: ast.AST) -> str:
    """The name at the root of `name.part[0].part`; empty if there is none."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
