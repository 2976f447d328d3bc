"""Text to learn from without any download."""

from graphkd.datasets import docstrings


def test_they_are_first_paragraphs_with_their_file(tmp_path, monkeypatch):
    for folder in ("library", "site/kept", "site/kept/tests", "site/other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "library/a.py").write_text(
        '"""First words of\n  a module.\n\nMore."""\nclass A:\n    """Too short."""\n'
    )
    (tmp_path / "site/kept/b.py").write_text(
        'def f():\n    """First words of a module."""\nasync def g():\n    """Words of the function g."""\n'
    )
    (tmp_path / "site/kept/tests/c.py").write_text('"""Words of a test."""\n')
    (tmp_path / "site/other/d.py").write_text('"""Words of another package."""\n')
    folders = {"stdlib": str(tmp_path / "library"), "purelib": str(tmp_path / "site")}
    monkeypatch.setattr("graphkd.datasets.texts.get_path", folders.__getitem__)
    assert docstrings(("kept", "missing")) == {"First words of a module.": "a.py", "Words of the function g.": "b.py"}
