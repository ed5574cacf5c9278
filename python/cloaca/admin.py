"""Tenants of a PostgreSQL database.

This version makes none, and says so by an exception before anything else.
"""

from __future__ import annotations

from .errors import StoreError, excerpt, typed
from .frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class TenantConfig(Frozen):
    """Which schema and user a tenant gets; without a password one is made up.

    Raises:
        StoreError: a field that is no `str`, or an empty schema or user name.
    """

    __slots__ = ("schema_name", "username", "password")  # noqa: RUF023  the order of the arguments

    schema_name: str
    username: str
    password: str | None

    def __init__(self, schema_name: str, username: str, password: str | None = None) -> None:
        for field, value in (("schema_name", schema_name), ("username", username)):
            if not isinstance(value, str) or not value:
                raise StoreError(f"{field} is {excerpt(value)}; it must be a str that isn't empty")
        if password is not None and not isinstance(password, str):
            raise StoreError(f"password is {typed(password)}; it must be a str or None")
        self._fill(schema_name=schema_name, username=username, password=password)

    def __repr__(self) -> str:
        shown = None if self.password is None else "***"
        return (
            f"TenantConfig(schema_name={self.schema_name!r}, username={self.username!r}, password={shown!r})"
        )


class TenantCredentials(Frozen):
    """How a tenant connects."""

    __slots__ = (  # noqa: RUF023  the order of the arguments
        "username",
        "password",
        "schema_name",
        "connection_string",
    )

    username: str
    password: str
    schema_name: str
    connection_string: str

    def __init__(self, username: str, password: str, schema_name: str, connection_string: str) -> None:
        self._fill(
            username=username, password=password, schema_name=schema_name, connection_string=connection_string
        )

    def __repr__(self) -> str:
        return (
            f"TenantCredentials(username={self.username!r}, password='***', schema_name={self.schema_name!r})"
        )


class DatabaseAdmin:
    """Makes and removes tenants on PostgreSQL.

    Raises:
        StoreError: (a `RuntimeError`) always here: SQLite has no tenants, and those of PostgreSQL are made by
            SQL in this version.
    """

    def __init__(self, database_url: str) -> None:
        if isinstance(database_url, str) and database_url.startswith(("postgresql://", "postgres://")):
            raise StoreError(
                "DatabaseAdmin makes no tenants in this version: make role and schema by SQL, and give the"
                " schema to DefaultRunner.with_schema"
            )
        shown = database_url.partition("?")[0] if isinstance(database_url, str) else database_url
        raise StoreError(
            f"DatabaseAdmin got {excerpt(shown)}: tenants need PostgreSQL, SQLite has none; use one file for"
            " each tenant"
        )

    def create_tenant(self, config: TenantConfig) -> TenantCredentials:
        """Makes a schema and a user. Raises `StoreError` always here."""
        _refuse()

    def remove_tenant(self, schema_name: str, username: str) -> None:
        """Removes a schema and its user. Raises `StoreError` always here."""
        _refuse()


def _refuse() -> NoReturn:
    raise StoreError(
        "DatabaseAdmin makes no tenants in this version: on PostgreSQL make role and schema by SQL, on SQLite"
        " use one file for each tenant"
    )
