import shutil
import struct
import zlib

from make.curated import write_selection
from skyloom.report.lineage import INLINE_PARAMETERS, LONGEST, ancestor, flatten, lineage_of
from skyloom.report.page import Plot, Section, Table, render


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def page(**changes) -> str:
    given = {
        "title": "Title", "kind": "report", "id": "abc", "lead": "Lead.", "facts": [("12", "things")], "sections": [],
        "lineage": [ancestor("report", "abc", "selection", {"dpi": 120}, {})], "command": "python analyze.py",
        "code": "skyloom 0",
    }  # fmt: skip
    return render(**{**given, **changes})


def test_texts_are_escaped():
    shown = page(
        title="<script>alert(1)</script>",
        command="a && b",
        sections=[Section("A", text=["1 < 2"], tables=[Table(["h"], [["<td>"]])], terms=[("T", "a & b")])],
    )
    assert "<script" not in shown
    for text in ("&lt;script&gt;", "a &amp;&amp; b", "1 &lt; 2", "&lt;td&gt;", "a &amp; b"):
        assert text in shown


def test_pictures_have_their_size_and_an_alternative_text():
    shown = page(
        sections=[Section("A", plots=[Plot("x.png", png(321, 45), "A caption."), Plot("y.png", png(1, 1), "B", True)])]
    )
    assert 'data-file="x.png" alt="A caption." width="321" height="45"' in shown
    assert '<figure class="plot">' in shown
    assert '<figure class="photo">' in shown  # not to be inverted on a dark page


def test_many_parameters_unfold_and_long_ones_are_cut():
    many = {f"p{i:02d}": i for i in range(INLINE_PARAMETERS + 3)}
    shown = page(lineage=[ancestor("cutouts", "x", "cutouts", {**many, "p": "y" * 500}, {})])
    assert "<summary>4 more</summary>" in shown
    assert "p10=10" in shown
    assert "y" * LONGEST + "…" in shown
    assert "y" * (LONGEST + 1) not in shown


def test_a_steps_own_options_stand_before_groups_of_them():
    row = ancestor("cutouts", "x", "cutouts", {"survey": {"name": "lotss"}, "window_px": 64}, {})
    assert [name for name, _ in row.parameters] == ["window_px", "survey.name"]


def test_nested_parameters_become_dotted_names():
    nested = {"levels": [{"clusters": 8}, {"clusters": 2}], "survey": {"beam": [6.0, 6.0], "unit": None}, "on": True}
    assert dict(flatten(nested)) == {
        "levels[0].clusters": "8", "levels[1].clusters": "2", "survey.beam": "[6.0,6.0]", "survey.unit": "null",
        "on": "true",
    }  # fmt: skip


def test_the_lineage_lists_each_once_and_below_what_was_made_from_it(tmp_path):
    made = write_selection(tmp_path)
    cutouts = made.inputs["clusters"].inputs["features"].inputs["cutouts"]
    rows = lineage_of([cutouts, made])
    assert [row.kind for row in rows] == ["selection", "clusters", "features", "cutouts", "images"]


def test_a_lost_ancestor_stays_in_the_lineage(tmp_path):
    made = write_selection(tmp_path)
    cutouts = made.inputs["clusters"].inputs["features"].inputs["cutouts"]
    lost = cutouts.inputs["images"].id
    shutil.rmtree(tmp_path / "images" / lost)
    last = lineage_of([made])[-1]
    assert (last.kind, last.id, last.step) == ("images", lost, "no longer in the store")
