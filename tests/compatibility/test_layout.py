"""What travels and what is stored only grows, in ways that every version can live with; and growing is a conscious act."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compatibility import record
from tests.compatibility.fields import Layout, breaks, layout
from tests.compatibility.recordings import Recording, recordings

NEWEST = recordings()[-1]


def test_the_present_layout_is_recorded() -> None:
    changed = layout() != NEWEST.layout
    assert not changed, (
        f"what travels or is stored differs from recording {NEWEST.revision}: {breaks(NEWEST.layout, layout()) or 'it has grown'}. "
        "If that is meant, record it: python -m tests.compatibility.record"
    )


@pytest.mark.parametrize("old", recordings(), ids=lambda old: str(old.revision))
def test_nothing_recorded_is_gone(old: Recording) -> None:
    assert breaks(old.layout, layout()) == []


RELEASED = "mesh.core.records.StepReleased"
ORIGIN = "mesh_sdk.protocol.records.Origin"
RUN_INFO = "mesh_sdk.reads.RunInfo"
Change = Callable[[Layout], object]


def fields(of: Layout, name: str) -> list[list[str]]:
    found: list[list[str]] = of["structs"][name]["fields"]
    return found


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(lambda new: fields(new, RELEASED).append(["lane", "str"]), "lane is new and has no default", id="no default"),
        pytest.param(lambda new: fields(new, RELEASED).insert(2, ["lane", "str", "''"]), "attempt has moved", id="in the middle"),
        pytest.param(lambda new: fields(new, RELEASED).reverse(), "run has moved", id="another order"),
        pytest.param(lambda new: fields(new, RELEASED).pop(), "worker is gone", id="removed"),
        pytest.param(lambda new: fields(new, ORIGIN)[1].__setitem__(2, "'?'"), "parent_run was", id="another default"),
        pytest.param(lambda new: fields(new, ORIGIN)[3].__setitem__(1, "int"), "moved was ['bool'", id="another type"),
        pytest.param(lambda new: fields(new, ORIGIN)[1].pop(), "parent_run was", id="default removed"),
        pytest.param(lambda new: new["structs"][RELEASED].update(tag="gone out"), "another shape or tag", id="another tag"),
        pytest.param(lambda new: new["structs"].pop(RELEASED), "StepReleased is gone", id="a struct removed"),
        pytest.param(lambda new: new["unions"]["Report"].remove("lent"), "'lent' is gone", id="a report removed"),
        pytest.param(
            lambda new: new["words"]["mesh_sdk.protocol.records"].update(RETURNED_FULL="crowded"), "'RETURNED_FULL'", id="another word"
        ),
        pytest.param(
            lambda new: new["words"]["mesh.core.records"].update(JOURNAL_VERSION=9), "'JOURNAL_VERSION'", id="a journal's version"
        ),
        pytest.param(lambda new: fields(new, RUN_INFO).append(["colour", "str"]), "colour is new", id="an object's field"),
    ],
)
def test_what_would_break_older_versions_is_told(change: Change, told: str) -> None:
    present = copy.deepcopy(NEWEST.layout)
    change(present)
    found = breaks(NEWEST.layout, present)
    assert any(told in each for each in found), found


@pytest.mark.parametrize(
    "change",
    [
        lambda new: fields(new, RELEASED).append(["lane", "str", "''"]),
        lambda new: fields(new, RUN_INFO).insert(0, ["colour", "str", "''"]),
        lambda new: new["structs"].update({"mesh.core.records.Novel": {"array": True, "tag": "novel", "fields": [["run", "str"]]}}),
        lambda new: fields(new, RELEASED)[-1].append("''"),
        lambda new: new["unions"]["Report"].append("novel"),
        lambda new: new["words"]["mesh_sdk.protocol.records"].update(RETURNED_BORED="bored"),
    ],
    ids=["a last field", "an object's field", "a struct", "a default", "a report", "a word"],
)
def test_growing_breaks_nothing(change: Change) -> None:
    present = copy.deepcopy(NEWEST.layout)
    change(present)
    assert breaks(NEWEST.layout, present) == []
    assert present != NEWEST.layout


# ---- the script ----------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the newest recording, where the script records."""
    for name, data in contents(NEWEST.folder).items():
        (tmp_path / "1" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "1" / name).write_bytes(data)
    monkeypatch.setattr(record, "FOLDER", tmp_path)
    monkeypatch.setattr(record, "recordings", lambda: [Recording(tmp_path / "1")])
    return tmp_path


def test_the_script_leaves_what_is_recorded_alone(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(shelf)
    assert record.main() == 1
    assert "nothing to record" in capsys.readouterr().out
    assert contents(shelf) == before


@pytest.mark.parametrize(("default", "recorded"), [("''", True), (None, False)])
def test_what_has_grown_is_recorded_beside_it(shelf: Path, monkeypatch: pytest.MonkeyPatch, default: str | None, recorded: bool) -> None:
    before = contents(shelf)
    present = copy.deepcopy(NEWEST.layout)
    fields(present, RELEASED).append(["lane", "str", *([default] if default else [])])
    monkeypatch.setattr(record, "layout", lambda: present)
    assert record.main() == (0 if recorded else 1)
    assert (shelf / "2").exists() == recorded
    assert {name: data for name, data in contents(shelf).items() if name.startswith("1/")} == before


def test_one_that_nobody_has_had_is_recorded_anew(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest, and not if those before it could not be read any more."""
    shutil.copytree(shelf / "1", shelf / "2")
    monkeypatch.setattr(record, "recordings", lambda: [Recording(shelf / "1"), Recording(shelf / "2")])
    (shelf / "2" / "runs.json").write_text("{}\n")
    before = contents(shelf / "1")
    assert record.main(["--anew"]) == 0
    assert Recording(shelf / "2").runs == NEWEST.runs
    assert contents(shelf / "1") == before
    assert sorted(folder.name for folder in shelf.iterdir()) == ["1", "2"]


def test_so_is_what_the_core_makes_of_it(shelf: Path) -> None:
    """Of two versions that remember the same journal otherwise, each has its recording."""
    digests = shelf / "1" / "digests.json"
    sequence = str(len(NEWEST.journal))
    digests.write_text(digests.read_text().replace(NEWEST.digests[sequence], "another"))
    assert record.main() == 0
    assert Recording(shelf / "2").digests[str(len(Recording(shelf / "2").journal))] != "another"
    assert Recording(shelf / "1").digests[sequence] == "another"
