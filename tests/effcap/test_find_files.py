"""Photos of files, folders and patterns: each once, in natural order."""

from __future__ import annotations

import pytest

from effcap.utils.find_files import find_photos


@pytest.fixture
def album(tmp_path, monkeypatch):
    names = ["10.jpg", "2.JPG", "note.txt", "sub/b.png", "sub/deep/a.webp", ".hidden/x.jpg",
             ".y.jpg", "odd[1].jpg"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(*arguments) -> list[str]:
    return [path.as_posix() for path in find_photos(arguments)]


def test_folders_yield_images_below_them_in_natural_order(album):
    assert paths("sub") == ["sub/b.png", "sub/deep/a.webp"]
    assert paths(album) == [
        str(album / name)
        for name in ("2.JPG", "10.jpg", "odd[1].jpg", "sub/b.png", "sub/deep/a.webp")
    ]


def test_patterns_are_expanded_in_subfolders_too(album):
    assert paths("*.jpg") == ["10.jpg", "odd[1].jpg"]
    assert paths("**/*.png", "sub/**") == ["sub/b.png", "sub/deep/a.webp"]
    assert paths("[0-9]*") == ["2.JPG", "10.jpg"]


def test_given_files_are_taken_whatever_their_suffix(album):
    assert paths("note.txt", "odd[1].jpg", ".y.jpg") == ["note.txt", "odd[1].jpg", ".y.jpg"]


def test_each_photo_is_returned_once_at_its_first_position(album):
    assert paths("10.jpg", "./10.jpg", album / "10.jpg", "*.jpg") == ["10.jpg", "odd[1].jpg"]


def test_circular_links_are_followed_once(album):
    (album / "sub" / "deep" / "up").symlink_to(album, target_is_directory=True)
    assert paths("sub")[:2] == ["sub/b.png", "sub/deep/a.webp"]
    assert len(paths(album)) == 5


@pytest.mark.parametrize("argument", ["gone.jpg", "gone/*.jpg", "*.tiff", "*.txt", "bare"])
def test_errors_name_the_argument_without_photos(album, argument):
    (album / "bare").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        find_photos(["10.jpg", argument])
    assert repr(argument) in str(error.value)


def test_natural_order_is_defined_for_any_mixture_of_names(tmp_path):
    for name in ("1", "a1", "1a", "a", "01", "²", "٣", "A2", "a10", "é"):
        (tmp_path / f"{name}.jpg").touch()
    assert len(find_photos([tmp_path])) == 10
    assert find_photos([tmp_path]) == find_photos([tmp_path])
