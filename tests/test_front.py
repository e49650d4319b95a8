"""The pictures of the front page are drawn from results, or left out."""

from benchmarks import front
from benchmarks.command import RESULTS

PAGE = RESULTS.parent / "index.md"


def test_pictures_are_drawn_from_what_was_measured(tmp_path):
    drawn = front.draw(RESULTS, tmp_path)
    assert drawn and all(
        (tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in drawn
    )
    # What can be drawn is in the repository, and on the page.
    for name in drawn:
        assert (RESULTS / name).exists()
        assert f"results/{name}" in PAGE.read_text(encoding="utf-8")


def test_a_picture_without_results_is_left_out(tmp_path):
    assert front.draw(tmp_path, tmp_path) == []
