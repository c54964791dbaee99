"""Which names the code of a cell defines, and which exercises it checks."""

from __future__ import annotations

import ast
import re


def defined(source: str) -> set[str]:
    """The names that a cell binds or changes at its top level: by def, class, =, import, or `NAME.part = …`.

    `NAME = check_NAME(NAME)` defines nothing. Code with a syntax error is searched for `def`, `class` and `=`.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        pairs = re.findall(r"(?m)^(?:async\s+def|def|class)\s+(\w+)|^(\w+)\s*=(?!=|\s*check_)", source)
        return {name for pair in pairs for name in pair if name}
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
            return  # names bound inside are local
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _name(node.value).startswith("check_"):
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
            while isinstance(node, (ast.Attribute, ast.Subscript)):
                node = node.value
            if isinstance(node, ast.Name):
                found.add(node.id)
            return
        if not isinstance(node, ast.Lambda):
            for child in ast.iter_child_nodes(node):
                visit(child)

    visit(tree)
    return found


def checked(source: str) -> set[str]:
    """The names of the exercises whose check a cell calls."""
    try:
        names = [_name(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError):
        return set(re.findall(r"\bcheck_(\w+)\s*\(", source))
    return {name.removeprefix("check_") for name in names if name.startswith("check_")}


def _name(call: ast.Call) -> str:
    """The name of the function that is called: f in `f(…)` and in `module.f(…)`."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
