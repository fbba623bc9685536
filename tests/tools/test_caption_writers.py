"""Tests of captions in XMP files beside photos, and in the metadata of photos."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from effcap.caption import Caption
from effcap.samplers import Greedy
from effcap.tools import EmbeddedCaptions, Sidecars, XmpSidecars, caption_folder
from effcap.tools.captioning.caption_writer import CannotWrite, CaptionWriter
from effcap.tools.cli import main
from effcap.tools.reports.tables import read_table
from helpers.cli_errors import fails
from helpers.data_maker import make_photos, make_randomized_captioner
from helpers.photo_metadata import (
    HEAD,
    RATED,
    TAIL,
    encode,
    exif_description,
    frames,
    xmp_description,
    xmp_text,
)

CAPTIONS = [Caption("A  dog\nruns.", -1.0, ()), Caption("Ein Bär 犬", -2.0, ())]
LINES = "A dog runs.\nEin Bär 犬"


@pytest.fixture
def photo(tmp_path) -> Path:
    folder = tmp_path / "mein Urlaub"
    folder.mkdir()
    (folder / "ein Bär.jpg").write_bytes(encode("JPEG"))
    return folder / "ein Bär.jpg"


def description(writer: CaptionWriter, photo: Path) -> str | None:
    """Returns the description that Pillow and another XML parser find."""
    if isinstance(writer, XmpSidecars):
        path = writer.path(photo)
        return xmp_description(path.read_bytes()) if path.exists() else None
    data = photo.read_bytes()
    return exif_description(data) if writer.kind == "exif" else xmp_description(xmp_text(data))


WRITERS = (XmpSidecars, lambda **x: EmbeddedCaptions("xmp", **x),
           lambda **x: EmbeddedCaptions("exif", **x))  # fmt: skip


@pytest.mark.parametrize("make", WRITERS)
def test_captions_become_the_description(photo, make):
    writer = make(before="{folder}/{name}: ", after=".")
    assert writer.plan([photo]).left_out == set()
    writer.write(photo, CAPTIONS)
    lines = [f"mein Urlaub/ein Bär: {line}." for line in LINES.split("\n")]
    assert description(writer, photo) == "\n".join(lines)
    assert frames(photo.read_bytes()) == frames(encode("JPEG"))
    assert writer.plan([photo]).existing == [photo]


@pytest.mark.parametrize("make", WRITERS)
@pytest.mark.parametrize(
    ("existing", "expected"),
    (("overwrite", LINES), ("append", f"old\n{LINES}"), ("prepend", f"{LINES}\nold")),
)
def test_existing_descriptions_are_treated_as_requested(photo, make, existing, expected):
    make().replace(photo, "old")
    writer = make(existing=existing)
    assert writer.plan([photo]).left_out == set()
    writer.write(photo, CAPTIONS)
    assert description(writer, photo) == expected


@pytest.mark.parametrize(
    ("files", "used"),
    (
        ({}, "dog.jpg.xmp"),
        ({"dog.xmp": ""}, "dog.xmp"),
        ({"dog.xmp": "", "dog.jpg.xmp": ""}, "dog.jpg.xmp"),
        ({"dog.xmp": "JPG"}, "dog.xmp"),
        ({"dog.xmp": "CR2"}, "dog.jpg.xmp"),
    ),
)
def test_the_xmp_file_of_either_name_is_used(tmp_path, files, used):
    for name, owner in files.items():
        photoshop = 'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
        body = f'<rdf:Description {photoshop} photoshop:SidecarForExtension="{owner}"/>'
        (tmp_path / name).write_text(HEAD + (body if owner else RATED) + TAIL, encoding="utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    XmpSidecars().write(tmp_path / "dog.jpg", CAPTIONS)
    assert xmp_description((tmp_path / used).read_bytes()) == LINES
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {used}


def test_everything_else_in_an_xmp_file_stays(tmp_path):
    path = tmp_path / "dog.jpg.xmp"
    text = '<?xml version="1.0"?>\n' + HEAD + RATED + TAIL
    path.write_text(text, encoding="utf-8")
    XmpSidecars().write(tmp_path / "dog.jpg", CAPTIONS)
    new = path.read_text(encoding="utf-8")
    start, stop = new.index("<dc:description>"), new.index("</dc:description>") + 17
    assert new[:start].rstrip() + new[stop:] == text


def test_photos_that_share_an_xmp_file_are_refused(tmp_path):
    (tmp_path / "dog.xmp").write_text(HEAD + RATED + TAIL, encoding="utf-8")
    with pytest.raises(ValueError, match="which share .*dog.xmp"):
        XmpSidecars().plan([tmp_path / "dog.jpg", tmp_path / "dog.png"])


def test_damaged_xmp_files_are_refused_untouched(photo):
    path = photo.with_name(photo.name + ".xmp")
    path.write_bytes(b"<no xmp>")
    (photo.parent / "other.jpg").write_bytes(b"")
    plan = XmpSidecars(existing="overwrite").plan([photo, photo.parent / "other.jpg"])
    assert [(name, "damaged" in reason) for name, reason in plan.refused] == [(photo, True)]
    with pytest.raises(CannotWrite, match="damaged"):
        XmpSidecars(existing="overwrite").write(photo, CAPTIONS)
    assert path.read_bytes() == b"<no xmp>"


@pytest.mark.parametrize("make", WRITERS)
def test_a_write_that_fails_leaves_what_was_there(photo, make, monkeypatch):
    make().replace(photo, "old")
    files = {path: path.read_bytes() for path in photo.parent.iterdir()}

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("effcap.utils.files.os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        make(existing="overwrite").write(photo, CAPTIONS)
    assert {path: path.read_bytes() for path in photo.parent.iterdir()} == files


def test_modes_links_and_attributes_are_kept(photo):
    photo.chmod(0o640)
    link, hard = photo.with_name("link.jpg"), photo.with_name("hard.jpg")
    link.symlink_to(photo.name)
    os.link(photo, hard)
    os.utime(photo, (1, 1))
    EmbeddedCaptions("exif").write(link, CAPTIONS)
    assert link.is_symlink() and exif_description(photo.read_bytes()) == LINES
    assert photo.stat().st_mode & 0o777 == 0o640 and photo.stat().st_mtime > 1e9
    assert exif_description(hard.read_bytes()) is None  # as documented


def test_read_only_places_are_found_before_captioning(photo, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: os.fspath(path) != os.fspath(photo))
    with pytest.raises(ValueError, match="any of the 1 photos, such as .*: .* is read-only"):
        EmbeddedCaptions().plan([photo])
    assert XmpSidecars().plan([photo]).refused == []


def test_text_is_not_added_to_other_encodings(photo):
    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = b"B\xe4r"
    photo.write_bytes(encode("JPEG", rich=False, exif=exif))
    assert EmbeddedCaptions("exif").plan([photo]).existing == [photo]
    with pytest.raises(ValueError, match="not UTF-8"):
        EmbeddedCaptions("exif", existing="append").plan([photo])
    EmbeddedCaptions("exif", existing="overwrite").write(photo, CAPTIONS)
    assert exif_description(photo.read_bytes()) == LINES


@pytest.mark.parametrize(
    ("make", "message"),
    (
        (lambda: EmbeddedCaptions("iptc"), "kind out of xmp, exif. Received: kind='iptc'"),
        (lambda: XmpSidecars(existing="never"), "existing out of skip"),
        (lambda: Sidecars(existing="never"), "existing out of skip"),
    ),
)
def test_invalid_writers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_the_command_writes_and_continues_without_loading_the_model(tmp_path, capsys, monkeypatch):
    captioner = make_randomized_captioner()
    captioner.save_to_preset(tmp_path / "preset")
    make_photos(tmp_path / "holiday", 3)
    paths = sorted((tmp_path / "holiday").iterdir())
    expected = captioner.generate(paths, Greedy(max_new_tokens=6))
    shutil.copy(Path(paths[0]), tmp_path / "holiday" / "z.png")  # a JPEG with another suffix
    (tmp_path / "holiday" / "a.gif").write_bytes(b"GIF89a")
    command = ["caption", str(tmp_path / "holiday"), "--model", str(tmp_path / "preset")]
    command += ["--write", "xmp", "--sampler", "greedy", "--max-new-tokens", "6"]
    command += ["--report", str(tmp_path / "report.csv")]
    assert main(command) == 0
    error = capsys.readouterr().err
    assert "4 photos with captions written to dc:description of XMP" in error
    assert "1 of 5 photos were skipped" in error and "not into GIF" in error
    for path, caption in zip([*paths, tmp_path / "holiday" / "z.png"], [*expected, expected[0]],
                             strict=True):  # fmt: skip
        assert xmp_description(xmp_text(path.read_bytes())) == caption
    monkeypatch.setattr("effcap.tools.cli.caption.start_engine", lambda _: pytest.fail("Keras"))
    assert main(command) == 0
    assert "captions exist for 4 of 5 photos" in capsys.readouterr().err
    outcomes = [row["outcome"] for row in read_table(tmp_path / "report.csv")]
    assert sorted(outcomes) == ["existing"] * 4 + ["skipped"]
    results = caption_folder(tmp_path / "holiday", "no preset", writer=EmbeddedCaptions())
    assert len(results.existing) == 4 and not results.captions


@pytest.mark.parametrize(
    ("options", "message"),
    (
        (["photos", "--sidecar", "--write", "xmp"], "only one of --sidecar and --write"),
        (["--features", "f.hdf5", "--write", "exif"], "--write requires photos"),
        (["--shards", "x", "--out", "y", "--write", "exif"], "--write requires photos"),
    ),
)
def test_options_that_do_not_fit_are_reported(options, message, capsys):
    assert message in fails(["caption", *options], capsys)


def test_an_xmp_file_without_contents_is_written_to(photo):
    path = XmpSidecars().path(photo)
    path.write_bytes(b" \n\0")
    assert XmpSidecars().plan([photo]).left_out == set()
    XmpSidecars().write(photo, CAPTIONS)
    assert xmp_description(path.read_bytes()) == LINES


def test_two_names_of_one_photo_are_refused(photo):
    other = photo.with_name("link.jpg")
    other.symlink_to(photo)
    with pytest.raises(ValueError, match="link.jpg, which share"):
        EmbeddedCaptions("exif", existing="append").plan([photo, other])


def test_names_that_are_not_utf8_are_left_out_of_texts(tmp_path):
    photo = Path(os.fsdecode(os.fsencode(tmp_path) + b"/B\xe4r.jpg"))
    photo.write_bytes(encode("JPEG"))
    Sidecars().write(photo, CAPTIONS)
    with pytest.raises(CannotWrite, match="is not UTF-8"):
        Sidecars(before="{name}: ", existing="overwrite").write(photo, CAPTIONS)
    assert Sidecars().path(photo).read_text(encoding="utf-8") == LINES + "\n"


def test_control_characters_around_captions_are_refused():
    with pytest.raises(ValueError, match="before without control characters"):
        Sidecars(before="a\x00")
