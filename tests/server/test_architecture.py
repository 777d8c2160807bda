"""Rules that imports alone do not show: who connects to others, and what reads a pattern."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = sorted((ROOT / "flagd_server").rglob("*.py"))
SDK = sorted((ROOT / "sdk" / "flagd_sdk").rglob("*.py"))

# Modules that make connections of their own accord.
CLIENTS = {
    "aiohttp",
    "asyncio",
    "ftplib",
    "http.client",
    "httpx",
    "imaplib",
    "poplib",
    "requests",
    "smtplib",
    "ssl",
    "urllib.request",
    "urllib3",
    "xmlrpc",
}
CONNECTING = {"connect", "connect_ex", "create_connection", "getaddrinfo", "gethostbyname"}
# Its drivers connect to the database.
STORAGE = "flagd_server/storage/"


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield what is called: (the module or object, or nothing, and the name)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                of = node.func.value
                yield (of.id if isinstance(of, ast.Name) else "…"), node.func.attr
            elif isinstance(node.func, ast.Name):
                yield "", node.func.id


def parsed(paths: list[Path]) -> Iterator[tuple[str, ast.Module]]:
    for path in paths:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def test_one_module_alone_connects_to_others() -> None:
    found = {}
    for path, tree in parsed(SERVER):
        called = {name for _, name in calls(tree) if name in CONNECTING}
        suspect = (CLIENTS & set(imports(tree))) | called
        if path.startswith(STORAGE):
            suspect -= {"connect"}
        if suspect:
            found[path] = suspect
    assert found == {
        "flagd_server/outgoing.py": {"http.client", "ssl", "create_connection", "getaddrinfo"},
        "flagd_server/cli/health.py": {"http.client"},  # asks the server beside it
        "flagd_server/serving/__init__.py": {"getaddrinfo"},  # of the address that it listens on
    }


def test_python_s_own_engine_reads_patterns_only_that_stand_in_the_code() -> None:
    """It takes exponential time for some; RE2, which people's patterns go to, never does."""
    read, users = 0, set()
    for path, tree in parsed(SERVER + SDK):
        if "re2" in set(imports(tree)):
            users.add(path)
        assert not {"regex", "fnmatch", "glob"} & {name.split(".")[0] for name in imports(tree)}
        at_import = {
            call
            for node in tree.body
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for call in ast.walk(node)
            if isinstance(call, ast.Call)
        }
        constants = {
            target.id
            for node in tree.body
            if isinstance(node, (ast.Assign, ast.AnnAssign))
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "re"
                and node.func.attr != "escape"
            ):
                read += 1
                (pattern, *_) = node.args
                names = {name.id for name in ast.walk(pattern) if isinstance(name, ast.Name)}
                # What is made when a module is loaded is made before anybody has sent anything.
                assert node in at_import or names <= constants, f"{path}: {ast.unparse(node)}"
    assert read > 20
    assert users == {"sdk/flagd_sdk/core/operators.py"}
