"""The JSON Schemas say what the codecs take."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import fields

from fsm_worker.diagrams.schema import schema
from protocol.registry import DIALECTS, NATIVE, Dialect, tag
from protocol.table import MESSAGES, Direction, tag_of

GOLDEN = Path(__file__).parent / "protocol" / "golden"
JSON = [dialect for dialect in DIALECTS if dialect.is_json]
MESSAGES_OF = [(dialect, kind) for dialect in JSON for kind in dialect.kinds]
ids = {"ids": lambda value: getattr(value, "name", None) or value.__name__}


def parts(dialect: Dialect) -> dict[str, Any]:
    found: dict[str, Any] = schema(dialect)["$defs"]
    return found


def accepts(given: Any, value: Any, known: dict[str, Any]) -> bool:
    """The part of JSON Schema that these schemas use; a word that is not known here fails."""
    for word, asked in given.items():
        match word:
            case "title" | "description" | "default" | "format":
                good = True
            case "$ref":
                good = accepts(known[asked.rpartition("/")[2]], value, known)
            case "type":
                good = is_a(value, asked)
            case "enum":
                good = value in asked
            case "const":
                good = value == asked
            case "anyOf" | "oneOf":
                fit = [accepts(one, value, known) for one in asked]
                good = any(fit) if word == "anyOf" else fit.count(True) == 1
            case "properties":
                good = all(accepts(asked[k], v, known) for k, v in value.items() if k in asked)
            case "required":
                good = set(asked) <= set(value)
            case "additionalProperties":
                good = all(accepts(asked, v, known) for v in value.values())
            case "items":
                good = asked is False or all(accepts(asked, item, known) for item in value)
            case "prefixItems":
                good = all(accepts(s, item, known) for s, item in zip(asked, value, strict=True))
            case "minItems" | "minLength":
                good = len(value) >= asked
            case "maxItems" | "maxLength":
                good = len(value) <= asked
            case "minimum":
                good = value >= asked
            case "maximum":
                good = value <= asked
            case "pattern":
                good = isinstance(value, str)
            case _:
                raise AssertionError(f"the schema says {word}: teach it to this test")
        if not good:
            return False
    return True


def is_a(value: Any, kind: str) -> bool:
    types: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
        "integer": int, "number": (int, float),
    }  # fmt: skip
    return isinstance(value, types[kind]) and not (
        isinstance(value, bool) and kind in {"integer", "number"}
    )


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_every_golden_message_fits_the_schema_of_its_direction_and_no_other(path: Path) -> None:
    known = parts(NATIVE)
    message = json.loads(path.read_text())["msg"]
    row = next(row for row in MESSAGES if row.tag == path.stem)
    for direction, name in (
        (Direction.TO_WORKER, "a_client_to_a_worker"),
        (Direction.TO_CLIENT, "a_worker_to_a_client"),
    ):
        assert accepts(known[name], message, known) is (direction in row.direction)
    for wrong in (
        {**message, "type": "pause"},
        {**message, **{key: {"no": object} for key in set(message) - {"type"}}},
    ):
        assert len(message) == 1 or not accepts(known[row.message.__name__], wrong, known)


@pytest.mark.parametrize(("dialect", "kind"), MESSAGES_OF, **ids)
def test_a_schema_has_every_field_and_asks_for_those_without_a_default(
    dialect: Dialect, kind: type[Struct]
) -> None:
    part = parts(dialect)[kind.__name__]
    named = kind.__struct_config__.tag_field
    own = {field.encode_name for field in fields(kind)}
    assert set(part["properties"]) == own | ({named} if named else set())
    asked = {field.encode_name for field in fields(kind) if field.required}
    assert set(part.get("required", ())) == asked | ({named} if named else set())
    if named:
        assert part["properties"][named] == {"enum": [tag(kind)]}


def test_every_message_of_the_table_has_a_schema() -> None:
    assert {tag_of(kind) for kind in NATIVE.kinds} == {row.tag for row in MESSAGES}  # type: ignore[arg-type]
    for row in MESSAGES:
        assert row.message.__name__ in parts(NATIVE)
