"""Progress: the same items, shown as a bar or in lines, and never on standard output."""

import io

import pytest
from rich.console import Console

from darkroom import progress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A console that believes to be a terminal."""
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True, width=80))
    return screen


def test_say_writes_one_line_to_stderr_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("[red] /data/:cat:/x " + "long " * 60)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "[red] /data/:cat:/x " + "long " * 60 + "\n"


def test_items_pass_through_unchanged_and_one_by_one() -> None:
    taken: list[int] = []
    source = (taken.append(number) or number for number in range(5))
    tracked = progress.track(source, total=5, what="Counting")
    assert next(tracked) == 0
    assert taken == [0], "it must not run ahead"
    assert list(tracked) == [1, 2, 3, 4]


def test_short_work_prints_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track("abc", total=3, what="Reading")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    list(progress.track(range(3), total=3, what="Decoding", unit="pictures"))
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == "Decoding: 1 of 3 pictures"
    assert captured.err.splitlines()[-1] == "Decoding: 3 of 3 pictures"
    assert captured.out == ""


def test_a_terminal_gets_a_bar_that_goes_away(terminal: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(4), total=4, what="Decoding")) == [0, 1, 2, 3]
    assert "Decoding" in terminal.getvalue()
    assert capsys.readouterr() == ("", "")


def test_an_error_in_the_work_comes_through_the_bar(terminal: io.StringIO) -> None:
    def broken() -> object:
        yield 1
        raise ValueError("in the work")

    with pytest.raises(ValueError, match="in the work"):
        list(progress.track(broken(), total=2, what="Decoding"))  # type: ignore[arg-type]
