"""Imports run one way, and each dependency has one room."""

import ast
from pathlib import Path

import pytest

import towerbus

ROOT = Path(towerbus.__file__).parent
PURE = {"event", "topics", "interest", "positions", "errors", "access", "dispatcher", "outbox", "session", "log.packing", "log.pieces", "log.record", "log.tail", "log.window",
        "dialects.messages", "dialects.reading", "dialects.tower", "dialects.v1", "dialects.watching", "catchup.encodings", "catchup.limits", "catchup.member", "catchup.rest", "wire.frames", "wire.deflate",
        "urls", "intake.line", "intake.messages", "amqp.url", "amqp.names", "worker.counters", "worker.known", "worker.ordering", "bench.content", "bench.frames", "bench.latencies", "bench.ledger", "bench.loads", "bench.schedule", "log.sequence", "log.following", "ops.freshness", "bridge.message", "bridge.template", "bridge.runner", "bridge.mapping", "bridge.awx", "bridge.followed", "bridge.waiting"}  # fmt: skip
SHELLS = (
    "towerbus.wire",
    "towerbus.hub",
    "towerbus.services",
    "towerbus.tap",
    "towerbus.cli",
    "towerbus.commands",
    "towerbus.emitter",
)
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.rglob("*.py"))


def imports(module):
    """The names that a module imports anywhere, and those at its top."""
    tree = ast.parse((ROOT / Path(*module.split("."))).with_suffix(".py").read_text())
    found = {"anywhere": set(), "top": set()}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found["anywhere"].update(names)
        if node in tree.body:
            found["top"].update(names)
    return found


@pytest.mark.parametrize("module", sorted(PURE))
def test_values_and_rules_import_no_io(module):
    for name in imports(module)["anywhere"]:
        assert not name.startswith(
            ("twisted", "autobahn", "pika", "socket", "threading", "asyncio", "urllib3", "treq", *SHELLS)
        ) or (name.startswith("towerbus.wire.frames")), name


@pytest.mark.parametrize("module", MODULES)
def test_each_dependency_has_one_room(module):
    found = imports(module)
    for name in found["anywhere"]:
        if name.startswith(("autobahn", "txaio")):
            assert module.startswith("wire."), name
        if name.startswith("pika"):
            assert module.startswith("amqp."), name
        if name.startswith("psycopg"):
            assert module.startswith("postgres."), name
    assert "twisted.internet.reactor" not in found["top"], "the global reactor is imported at the last moment only"


WIRING = {"services", "server", "tap", "server_tap", "worker_tap", "bridge_tap", "__init__"}


@pytest.mark.parametrize("module", [module for module in MODULES if module not in WIRING])
def test_nothing_below_imports_the_wiring(module):
    for name in imports(module)["anywhere"]:
        assert not name.startswith(("towerbus.services", "towerbus.tap")), name
