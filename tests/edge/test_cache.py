from pathlib import Path

import pytest

from edge.cache import CACHE_VARIABLE, cache_folder, content_key, sources_key


def test_the_environment_names_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(CACHE_VARIABLE)
    assert cache_folder().name == "modiff-edge"


def test_keys_tell_parts_and_their_borders_apart() -> None:
    assert len({content_key("a", "b"), content_key("ab"), content_key("a", "c"), content_key("b", "a")}) == 4


def test_a_changed_source_changes_the_key(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("1")
    two.write_text("2")
    before = sources_key([two, one])
    assert sources_key([one, two]) == before
    two.write_text("3")
    assert sources_key([one, two]) != before
