"""The public names: each is there, says what it is, and stands in docs/api.md, which names no others."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from nucleate.public import PUBLIC

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
NAMES = [(module, name) for module, names in PUBLIC.items() for name in names]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=lambda part: part.removeprefix("nucleate."))
def test_a_public_name_is_there_and_says_what_it_is(module: str, name: str):
    thing = getattr(importlib.import_module(module), name)
    assert inspect.isclass(thing) or callable(thing)
    text = (thing.__doc__ or "").strip()
    assert text
    assert not text.startswith(f"{name}("), "what dataclasses write for those who write nothing"


def test_the_page_names_these_and_no_others():
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \|", PAGE.read_text(), flags=re.MULTILINE)
    shown = {(f"nucleate.{module}", name) for module, cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert shown == set(NAMES)


def test_no_name_is_listed_twice():
    assert len(set(NAMES)) == len(NAMES)
