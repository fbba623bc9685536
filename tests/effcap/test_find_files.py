"""Files, folders and patterns give the photos that people mean, each once, in natural order."""

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


def found(*arguments) -> list[str]:
    return [path.as_posix() for path in find_photos(arguments)]


def test_folder_gives_images_below_it_in_natural_order(album):
    assert found("sub") == ["sub/b.png", "sub/deep/a.webp"]
    assert found(album) == [
        str(album / name)
        for name in ("2.JPG", "10.jpg", "odd[1].jpg", "sub/b.png", "sub/deep/a.webp")
    ]


def test_patterns_are_expanded_also_below_folders(album):
    assert found("*.jpg") == ["10.jpg", "odd[1].jpg"]
    assert found("**/*.png", "sub/**") == ["sub/b.png", "sub/deep/a.webp"]
    assert found("[0-9]*") == ["2.JPG", "10.jpg"]


def test_named_file_is_taken_whatever_its_name(album):
    assert found("note.txt", "odd[1].jpg", ".y.jpg") == ["note.txt", "odd[1].jpg", ".y.jpg"]


def test_each_photo_comes_once_at_its_first_place(album):
    assert found("10.jpg", "./10.jpg", album / "10.jpg", "*.jpg") == ["10.jpg", "odd[1].jpg"]


def test_a_circle_of_links_ends(album):
    (album / "sub" / "deep" / "up").symlink_to(album, target_is_directory=True)
    assert found("sub")[:2] == ["sub/b.png", "sub/deep/a.webp"]
    assert len(found(album)) == 5


@pytest.mark.parametrize("argument", ["gone.jpg", "gone/*.jpg", "*.tiff", "*.txt", "bare"])
def test_argument_that_gives_no_photo_is_named(album, argument):
    (album / "bare").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        find_photos(["10.jpg", argument])
    assert repr(argument) in str(error.value)


def test_natural_order_survives_any_mixture_of_names(tmp_path):
    for name in ("1", "a1", "1a", "a", "01", "²", "٣", "A2", "a10", "é"):
        (tmp_path / f"{name}.jpg").touch()
    assert len(find_photos([tmp_path])) == 10
    assert find_photos([tmp_path]) == find_photos([tmp_path])
