"""PostgreSQL for tests, as fixtures."""

import secrets

import pytest
from support.postgres import Postgres


@pytest.fixture(scope="session")
def _postgres_server():
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres(_postgres_server):
    """A server that may be killed and frozen; it runs again when the next test begins."""
    _postgres_server.recover()
    return _postgres_server


@pytest.fixture
def database(postgres):
    """The URL of a fresh database."""
    return postgres.database(f"d{secrets.token_hex(6)}")
