"""Readings of one source text, each a list of what is wrong with it; the tests beside this file apply them to all."""

import ast
from collections.abc import Iterator
from typing import Final

FILE_MAX_LINES: Final = 500
BODY_MAX_LINES: Final = 45
"""Code lines of a function: neither blank, comment nor docstring. The 99th percentile of code we like to read."""

SYSTEM_VARIABLES: Final = frozenset(
    {"NOTIFY_SOCKET", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC"}
)
"""What systemd tells a service through its environment; nothing else there may steer us."""

SYSTEM_MODULES: Final = frozenset({"os", "socket", "subprocess", "time"})


def oversize(source: str) -> Iterator[str]:
    lines = source.splitlines()
    if len(lines) > FILE_MAX_LINES:
        yield f"{len(lines)} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node, clean=False) and len(node.body) > 1 else node.body[0]
            body = [line.strip() for line in lines[first.lineno - 1 : node.end_lineno]]
            count = sum(1 for line in body if line and not line.startswith("#"))
            if count > BODY_MAX_LINES:
                yield f"{node.name}: {count} code lines"


def swallowed(source: str) -> Iterator[str]:
    """Handlers that catch everything and say nothing."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            everything = node.type is None or (isinstance(node.type, ast.Name) and node.type.id.endswith("Exception"))
            if everything and all(isinstance(step, ast.Pass) for step in node.body):
                yield f"line {node.lineno}"


def environment_read(source: str) -> Iterator[str]:
    """Reads of the environment that are not one of systemd's own. Writing, for a library to read, is no reading."""
    tree = ast.parse(source)
    rightful: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and (isinstance(node.ctx, ast.Store) or names_system_variable(node.slice)):
            rightful.add(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            rightful |= {node.func.value} if names_system_variable(*node.args[:1]) else set()
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in ("environ", "environb", "getenv") and node not in rightful:
            yield f"line {node.lineno}: {name}"


def names_system_variable(*key: ast.expr) -> bool:
    return any(isinstance(part, ast.Constant) and part.value in SYSTEM_VARIABLES for part in key)


def avoided(source: str) -> Iterator[str]:
    """Ways for a test not to run, or to pass by failing."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "pytest":
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("pytest", "pytest.mark"):
            names = {node.attr}
        else:
            continue
        yield from (f"line {node.lineno}: {name}" for name in names & {"skip", "skipif", "xfail", "importorskip"})


def patched(source: str) -> Iterator[str]:
    """Replacements of the operating system under the code, instead of a double at a port."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = ast.unparse(node.func)
        if not (called.endswith(("patch", "patch.object", "setattr")) and called != "object.__setattr__"):
            continue
        target = node.args[0].value if isinstance(node.args[0], ast.Constant) else ast.unparse(node.args[0])
        if SYSTEM_MODULES & set(str(target).split(".")):
            yield f"line {node.lineno}: {ast.unparse(node)}"
