"""Tenants of a PostgreSQL database: a schema each, and a role that owns it.

Invariant: names are checked before anything is asked of a server, and no password is shown.
"""

from __future__ import annotations

from . import _cloaca, check
from .errors import ArgumentError, ArgumentTypeError, StoreError, excerpt, typed
from .frozen import Frozen
from .name import is_text


class TenantConfig(Frozen):
    """Which schema and role a tenant gets, and its password; without one, or with an empty one, it gets one
    that is made up.

    Raises:
        ArgumentTypeError: (a `TypeError`) a field that is no `str`.
        ArgumentError: (a `ValueError`) an empty schema or user name.
    """

    __slots__ = ("schema_name", "username", "password")  # noqa: RUF023  the order of the arguments

    schema_name: str
    username: str
    password: str | None

    def __init__(self, schema_name: str, username: str, password: str | None = None) -> None:
        for field, value in (("schema_name", schema_name), ("username", username)):
            if not check.text(value, field).strip():
                raise ArgumentError(f"{field} is {excerpt(value)}; it must not be empty")
        if password is not None and not isinstance(password, str):
            raise ArgumentTypeError(f"password is {typed(password)}; it must be a str or None")
        if password is not None and not is_text(password):
            raise ArgumentTypeError("password holds a lone surrogate, which no server takes")
        self._fill(schema_name=schema_name, username=username, password=password)

    def __repr__(self) -> str:
        shown = None if self.password is None else "***"
        return (
            f"TenantConfig(schema_name={self.schema_name!r}, username={self.username!r}, password={shown!r})"
        )


class TenantCredentials(Frozen):
    """How a tenant connects: `connection_string` is the URL of its store, as `DefaultRunner` takes it, with
    its password. `repr` hides both."""

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
    """Makes and removes tenants on PostgreSQL, as the user that the URL names, who may make roles and schemas
    (`CREATEROLE`, and `CREATE` on the database) or is a superuser. Nothing is asked of the server before the
    first call.

    Args:
        database_url (str): the database, as `DefaultRunner` takes it.

    Raises:
        StoreError: (a `RuntimeError`) the URL means SQLite, which has no tenants: use one file for each.
        UrlError: (a `ValueError`) it has none of the known forms.
    """

    def __init__(self, database_url: str) -> None:
        if not isinstance(database_url, str):
            raise ArgumentTypeError(
                f"database_url is {excerpt(database_url)}, {typed(database_url)}; it must be a str"
            )
        self._url = check.text(database_url, "database_url")
        if not check.on_server(self._url):
            # What is none may hold a password all the same.
            raise StoreError(
                "DatabaseAdmin got what is no URL of a server, postgresql://USER@HOST/DATABASE: tenants need"
                " PostgreSQL, SQLite has none; use one file for each tenant"
            )
        self._name = _cloaca.name_of(self._url)

    def __repr__(self) -> str:
        return f"DatabaseAdmin({self._name!r})"

    def create_tenant(self, config: TenantConfig) -> TenantCredentials:
        """Makes a schema with cloaca's tables, and a role that owns it, may log in and may do nothing else.
        All of it is made at once, or nothing.

        Where the tenant is there it is renewed, and keeps what its store holds: the password becomes the one
        that `config` names; without one it gets a new one, and the one before is not taken any more. A role
        or a schema of that name that is not this tenant's is refused, and left as it is.

        Raises:
            StoreError: (a `RuntimeError`) the server cannot be reached, this user may not make roles or
                schemas, or the schema or the role is somebody else's.
            UrlError: (a `ValueError`) a name or the password cannot be one: it is empty, longer than 63
                bytes, holds a NUL, or belongs to PostgreSQL (`pg_…`, `public`, …) or to what names no schema
                (`cloaca`).
        """
        if not isinstance(config, TenantConfig):
            raise ArgumentTypeError(
                f"config is {excerpt(config)}, {typed(config)}; it must be a TenantConfig"
            )
        password, url = _cloaca.create_tenant(self._url, config.schema_name, config.username, config.password)
        return TenantCredentials(config.username, password, config.schema_name, url)

    def remove_tenant(self, schema_name: str, username: str) -> None:
        """Ends the tenant's sessions and removes its schema with all that it holds, and its role. One that is
        not there is no error; one that `create_tenant` has not made is refused.

        Raises:
            StoreError: (a `RuntimeError`) as `create_tenant`; or the role has something in another database.
            UrlError: (a `ValueError`) as `create_tenant`.
        """
        _cloaca.remove_tenant(
            self._url, check.text(schema_name, "schema_name"), check.text(username, "username")
        )
