"""Who looks at a store on a server: every statement of the package, the reader, the command line, doctor and health."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import cloaca
from cloaca.reading import Reader

STATEMENT = re.compile(r"\s*(SELECT|WITH)\s", re.ASCII)
PARAMETER = re.compile(r"\?(\d*)")


def statements() -> Iterator[tuple[str, str]]:
    """Every constant of the package that is a statement, by where it stands."""
    for found in pkgutil.walk_packages(cloaca.__path__, "cloaca."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if isinstance(value, str) and name.isupper() and STATEMENT.match(value) and "{}" not in value:
                yield f"{found.name}.{name}", value


@pytest.fixture
def store(postgres_url: str) -> str:
    """A store on a server in which something has happened."""

    @cloaca.task()
    def greet(context: dict[str, object]) -> dict[str, object]:
        if context.get("fail"):
            raise ValueError("on purpose")
        return {"text": f"hello, {context['name']}"}

    with cloaca.WorkflowBuilder("greet"):
        pass
    return postgres_url


def test_every_statement_of_the_package_is_understood_by_a_server(postgres_url: str) -> None:
    cloaca.DefaultRunner(postgres_url).shutdown()
    found = dict(statements())
    assert len(found) > 30
    refused = {}
    with Reader(postgres_url) as reader:
        for place, sql in found.items():
            numbers = [match[1] for match in PARAMETER.finditer(sql)]
            count = max((int(number or 1) for number in numbers), default=0)
            count = count if any(numbers) else len(numbers)
            try:
                reader.native.query(sql, [None] * count)
            except cloaca.StoreError as error:
                refused[place] = str(error)
    assert refused == {}
