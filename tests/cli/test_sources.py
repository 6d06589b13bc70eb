"""Changes of Python files are noticed, others are not."""

from __future__ import annotations

from mesh.cli.sources import Sources


def test_new_changed_and_removed_files_are_told_once(tmp_path):
    (tmp_path / "app").mkdir()
    kept, changed, removed = (tmp_path / "app" / name for name in ("kept.py", "changed.py", "removed.py"))
    for file in (kept, changed, removed):
        file.write_text("1\n")
    sources = Sources(tmp_path)
    assert sources.changed() == []
    changed.write_text("longer\n")
    removed.unlink()
    (tmp_path / "new.py").write_text("2\n")
    assert sources.changed() == sorted(map(str, (changed, removed, tmp_path / "new.py")))
    assert sources.changed() == []


def test_what_is_not_the_projects_own_source_is_not_looked_at(tmp_path):
    sources = Sources(tmp_path)
    for folder in (".venv", "__pycache__", "node_modules", ".mesh"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text("1\n")
    (tmp_path / "notes.txt").write_text("1\n")
    assert sources.changed() == []
