"""Which room may import which, and the reading of imports from source."""

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[2]

HOME: Final = {"mpwire": "agent", "mpagent": "agent", "mpissuer": "server", "mpserver": "server", "mpsim": "sim"}
"""The folder each room lies in."""

SEES: Final = {
    "mpwire": (),
    "mpagent": ("mpwire",),
    "mpissuer": ("mpwire",),
    "mpserver": ("mpwire", "mpissuer"),
    "mpsim": ("mpwire", "mpagent.hal.ports", "mpagent.errors"),
}

PURE_ROOM_REFUSES: Final = frozenset(
    {"sqlite3", "http", "socket", "ssl", "urllib", "requests", "granian", "subprocess"}
)
"""What mpissuer leaves to its ports: it must serve a station without a network or a database as well."""

DYNAMIC: Final = {
    "mpagent.hal.choose": ("mpagent.hal", "mpsim", "pkcs11"),
    "mpagent.hal.tpm.chip": ("tpm2_pytss",),
}
"""The modules that may import by a string, and what that string may begin with: the closed list of backends, which is
the single place in the device's code that names the simulation, and the one library that must be silenced first.

"pkcs11" is a backend's name in the list as well as a library's."""

IMPORTED_AS: Final = {"pyscard": "smartcard", "python_pkcs11": "pkcs11", "google_re2": "re2"}
"""Import names that a distribution's own name does not show."""

BACKEND_OF: Final = {
    "tpm2_pytss": ("mpagent.hal.tpm",),
    "smartcard": ("mpagent.hal.card",),
    "pkcs11": ("mpagent.hal.pkcs11", "mpserver.token"),
}
"""Libraries of hardware, and the one backend in a room that may import each: nobody else pays for it."""

LOADERS: Final = frozenset(
    {"import_module", "__import__", "exec", "eval", "spec_from_file_location", "run_module", "run_path"}
)
"""Names through which code loads what it knows only as text."""

TOUCHING: Final = (
    frozenset(
        {"os", "io", "shutil", "tempfile", "pathlib", "fcntl", "mmap", "ctypes", "signal", "subprocess", "sqlite3"}
    )
    | frozenset({"socket", "ssl", "http", "urllib", "requests", "urllib3", "asyncio"})
    | frozenset({"signal", "time", "threading", "tpm2_pytss"})
)
"""Modules with which code reaches disk, line, clock or chip. Deciding needs none of them."""


def names_imported(source: str) -> Iterator[str]:
    """Every module that `source` may load; `from a import b` yields both "a" and "a.b"."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_by_string(source: str) -> bool:
    """Whether it could load what no import statement names."""
    for node in ast.walk(ast.parse(source)):
        names = [node.attr] if isinstance(node, ast.Attribute) else [node.id] if isinstance(node, ast.Name) else []
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        if set(names) & LOADERS and not (isinstance(node, ast.Attribute) and node.attr in ("exec", "eval")):
            return True
    return False


def strings_of(source: str) -> Iterator[str]:
    """Every string constant that could be a module's name."""
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.replace(".", "").isidentifier()
        ):
            yield node.value


def within(module: str, roots: tuple[str, ...]) -> bool:
    return any(module == root or module.startswith(root + ".") for root in roots)


def declared(room: str, pyproject: str) -> frozenset[str]:
    """Third-party packages that the distribution of `room` names, as import names."""
    project = tomllib.loads(pyproject)["project"]
    extras = [line for lines in project.get("optional-dependencies", {}).values() for line in lines]
    names = [Requirement(line).name.replace("-", "_") for line in [*project["dependencies"], *extras]]
    found = {IMPORTED_AS.get(name, name) for name in names}
    if "requests" in found:
        found.add("urllib3")  # requests' own transport, whose settings and exceptions it hands through
    return frozenset({"cryptography"} if room == "mpwire" else found - set(HOME))


def violations(name: str, source: str, third_party: frozenset[str]) -> list[str]:
    """What module `name` imports and must not; `third_party` is what its distribution declares."""
    room = name.split(".")[0]
    wrong = []
    imported = set(names_imported(source))
    if imports_by_string(source):
        if name not in DYNAMIC:
            wrong.append("imports by a string")
        imported |= {text for text in strings_of(source) if text.split(".")[0] in {*HOME, *third_party}}
        imported -= {text for text in imported if within(text, DYNAMIC.get(name, ()))}
    for module in sorted(imported):
        top = module.split(".")[0]
        if top in HOME:
            seen = (room, *SEES[room])
            # `from a.b import c` also reads as "a.b"; it stands or falls with the longer name.
            leads_on = any(other.startswith(module + ".") and within(other, seen) for other in imported)
            if not within(module, seen) and not leads_on:
                wrong.append(module)
        elif not top:
            wrong.append(f"{module} is relative; the walls read whole names")
        elif top not in sys.stdlib_module_names and top not in third_party:
            wrong.append(f"{module} is no declared dependency")
        elif not within(name, BACKEND_OF.get(top, (name,))):
            wrong.append(f"{module} outside its backend")
        if room == "mpissuer" and top in PURE_ROOM_REFUSES:
            wrong.append(module)
    return wrong


def modules(*rooms: str) -> dict[str, str]:
    """Source of every module of these rooms (all when none is named), by its dotted name."""
    found = {}
    for room in rooms or HOME:
        base = ROOT / HOME[room]
        for path in sorted((base / room).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def touching(start: str, sources: Mapping[str, str]) -> list[str]:
    """How `start` can reach disk, line, clock or chip: "module -> what it touches", through every sibling it imports.

    Ports are where the walk ends: behind them stands what does touch.
    """
    wrong, waiting, seen = [], [start], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in sources:
            continue
        seen.add(name)
        imported = set(names_imported(sources[name]))
        wrong += [f"{name} -> {module}" for module in sorted(imported) if module.split(".")[0] in TOUCHING]
        wrong += [
            f"{name} -> {module}"
            for module in sorted(imported)
            if within(module, ("mpagent.hal",))
            and not within(module, ("mpagent.hal.ports",))
            and module in sources
            and module != "mpagent.hal"
        ]
        waiting += [module for module in imported if module.startswith("mpagent.")]
    return wrong
