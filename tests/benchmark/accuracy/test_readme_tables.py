import pytest

from graphkd.benchmark.accuracy.readme import replaced

TEXT = "a\n<!-- x -->\nold\nold\n<!-- end of x -->\nb\n<!-- y -->\nother\n<!-- end of y -->\n"


def test_only_what_stands_between_the_marks_is_replaced():
    assert replaced(TEXT, "x", "\nnew\n") == TEXT.replace("old\nold", "new")
    assert replaced(replaced(TEXT, "x", "new"), "x", "old\nold") == TEXT


@pytest.mark.parametrize("text", ["nothing", "<!-- x -->\n", "<!-- end of x -->\n<!-- x -->\n", TEXT + TEXT])
def test_a_file_without_the_marks_is_refused(text):
    with pytest.raises(ValueError, match=r"needs the lines <!-- x --> and <!-- end of x --> once each, in this order"):
        replaced(text, "x", "new")
