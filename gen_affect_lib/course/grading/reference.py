"""The kit's own component of an exercise, for the cells below an answer that is not right."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from gen_affect_lib.course.checks import Exercise

_CHECKS = "gen_affect_lib.course.checks"


def place(exercise: Exercise) -> list[str] | None:
    """[module, qualified name] of the component in the library; None if the checks define it themselves."""
    module, name = exercise.reference.__module__, exercise.reference.__qualname__
    return None if module.startswith(_CHECKS) or "<" in name else [module, name]


@cache
def source(number: str, name: str) -> str:
    """Code that defines the component of an exercise as `reference`, and nothing else of the checks.

    number: of the notebook. name: of the exercise. It is cut out of the module of checks: the expression that is passed
    as `reference`, and all definitions at the top of the module on which it depends.
    """
    module = inspect.getsource(sys.modules[f"{_CHECKS}.notebook_{number}"])
    statements = ast.parse(module).body
    check = next(one for one in statements if isinstance(one, ast.Assign) and _names(one) == {f"check_{name}"})
    assert isinstance(check.value, ast.Call)
    expression = next(one.value for one in check.value.keywords if one.arg == "reference")
    needed, parts = _used(expression), [ast.Expr(expression)]
    kept: list[ast.stmt] = []
    while parts:
        parts = [one for one in statements if one not in kept and _names(one) & needed and one is not check]
        kept += parts
        for one in parts:
            needed |= _used(one)
    lines = ["from __future__ import annotations"]
    for one in statements:
        if one in kept:
            lines.append(_import(one, needed) if isinstance(one, (ast.Import, ast.ImportFrom)) else ast.unparse(one))
    return "\n".join([*lines, f"reference = {ast.unparse(expression)}", ""])


def _names(statement: ast.stmt) -> set[str]:
    """The names that a statement defines, or whose attributes it sets."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def _used(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _import(statement: ast.Import | ast.ImportFrom, needed: set[str]) -> str:
    """An import of the needed names only."""
    statement.names = [alias for alias in statement.names if (alias.asname or alias.name).partition(".")[0] in needed]
    return ast.unparse(statement)
