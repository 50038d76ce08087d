import gzip
import hashlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile

import awkward as ak
import numpy as np
import pytest

from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.bundle.members import MAX_MEMBERS
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.errors import BundleError, EncodeError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.specs.measure import measure

EVENTS = Events.from_awkward(
    ak.Array({"met": [1.0, 2.0, 5.0], "Jet_pt": [[1.0, 2.0, 3.0], [], [4.0]]})
)
SPECS = measure(EVENTS, sample="ttH")
ENCODE = {"normalisation": "minmax", "width": 2, "out_of_range": "clip"}
MEMBERS = ["model.pt", "model_card.md", "specs.json"]


def write(path, **changes):
    parts = {
        "name": "higgs",
        "model": b"a TorchScript file, as far as a bundle is concerned",
        "specs": SPECS,
        "encode": ENCODE,
        "metrics": {"auc": 0.75},
        "data": {"files": ["a.root"]},
        "card": "# higgs\n",
    }
    return write_bundle(path, **{**parts, **changes})


@pytest.fixture
def bundle(tmp_path):
    return write(tmp_path / "bundle")


def edit_manifest(bundle, change):
    path = bundle.path / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def pack(path, members):
    """A tar.gz of (name, content) or (TarInfo, content)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def contents_of(bundle):
    return [(file.name, file.read_bytes()) for file in sorted(bundle.path.iterdir())]


@pytest.mark.parametrize(
    ("written", "clipped"),
    [
        ([{"Jet_*": "clip"}], [False, True]),
        ({"met": "clip", "*": "pass"}, [True, False]),
        ("clip", [True, True]),
        (None, [False, False]),
    ],
)
def test_a_bundle_says_which_branches_are_clipped(tmp_path, written, clipped):
    encode = {**ENCODE, "out_of_range": written}
    if written is None:  # as in a manifest that does not say it
        del encode["out_of_range"]
    opened = open_bundle(write(tmp_path / "bundle", encode=encode).path)
    assert [scaling.clip for scaling in opened.encoding.scalings] == clipped
    assert opened.manifest["encode"] == encode


def test_what_is_opened_is_what_was_written(bundle):
    opened = open_bundle(bundle.path)
    assert opened == bundle
    assert opened.name == "higgs"
    assert opened.specs == SPECS
    assert opened.encoding == Encoding.from_specs(SPECS, **ENCODE)
    assert opened.model_path.read_bytes() == b"a TorchScript file, as far as a bundle is concerned"
    assert opened.manifest["metrics"] == {"auc": 0.75}
    assert opened.manifest["data"] == {"files": ["a.root"]}
    assert opened.manifest["input"]["columns"] == ["met", "Jet_pt[0]", "Jet_pt[1]"]
    assert opened.manifest["libraries"]["numpy"] == np.__version__
    third = np.float32(1 / 3)
    expected = [[0, 0, third], [0.25, 0, 0], [1, 1, 0]]
    assert encode(EVENTS, opened.encoding).dense().tolist() == expected


def test_the_manifest_lists_size_and_checksum_of_every_other_file(bundle):
    on_disk = {name: content for name, content in contents_of(bundle) if name != "manifest.json"}
    assert sorted(on_disk) == MEMBERS
    assert bundle.manifest["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in on_disk.items()
    }


def test_other_formats_of_the_model_are_verified_like_its_own(tmp_path):
    bundle = write(tmp_path / "bundle", others={"model.onnx": b"ONNX", "model.pt2": b"a program"})
    assert sorted(bundle.manifest["files"]) == sorted([*MEMBERS, "model.onnx", "model.pt2"])
    opened = open_bundle(pack(tmp_path / "b.tar.gz", contents_of(bundle)), unpack_to=tmp_path / "b")
    assert (opened.path / "model.onnx").read_bytes() == b"ONNX"
    (bundle.path / "model.pt2").write_bytes(b"b program")
    with pytest.raises(BundleError, match=r"model\.pt2 was altered"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("member", MEMBERS)
def test_one_altered_byte_anywhere_is_noticed(member, bundle):
    path = bundle.path / member
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, 50).astype(int):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleError, match="was altered") as caught:
            open_bundle(bundle.path)
        assert caught.value.member == member
    path.write_bytes(content + b"\n")
    with pytest.raises(BundleError, match="was altered"):
        open_bundle(bundle.path)


@pytest.mark.slow
@pytest.mark.parametrize("bit", [0, 1, 5])
def test_no_altered_byte_of_the_manifest_changes_how_events_are_encoded(bit, bundle):
    path = bundle.path / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            opened = open_bundle(bundle.path)
        except BundleError:
            continue
        assert opened.encoding == bundle.encoding
        assert opened.specs == bundle.specs


@pytest.mark.parametrize("member", [*MEMBERS, "manifest.json"])
def test_a_missing_file_is_named(member, bundle):
    (bundle.path / member).unlink()
    with pytest.raises(BundleError, match=member) as caught:
        open_bundle(bundle.path)
    assert caught.value.member == member


@pytest.mark.parametrize("member", MEMBERS)
def test_a_link_is_not_a_file_of_the_bundle(member, bundle, tmp_path):
    (bundle.path / member).rename(tmp_path / "elsewhere")
    (bundle.path / member).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is missing"):
        open_bundle(bundle.path)


def test_a_run_directory_in_place_of_its_bundle_is_mended(bundle):
    with pytest.raises(BundleError, match=r"; did you mean '.*bundle'\?$"):
        open_bundle(bundle.path.parent)


def test_no_such_bundle_is_an_error(tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        open_bundle(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="other"), "not that of a bundle"),
        (lambda m: m.update(version=2), "bundle version 2"),
        (lambda m: m.pop("files"), "does not list"),
        (lambda m: m["files"].pop("model.pt"), "does not list"),
        (lambda m: m.update(files=[]), "does not list"),
        (lambda m: m["files"].update({"specs.json": "text"}), "was altered"),
        (lambda m: m["files"].update({"../specs.json": {}}), "not a file name"),
        (lambda m: m["files"].update({"/etc/passwd": {}}), "not a file name"),
        (lambda m: m.pop("name"), "has no 'name'"),
        (lambda m: m.pop("encode"), "has no 'encode'"),
        (lambda m: m.update(encode=[3]), "has no 'encode'"),
        (lambda m: m["encode"].update(normalisation="maxmin"), "encode options"),
        (lambda m: m["encode"].update(more=1), "encode options"),
        (lambda m: m["encode"].update(width="2"), "encode options"),
        (lambda m: m["encode"].update(width=3), "columns"),
        (lambda m: m.update(input=[]), "has no 'input'"),
        (lambda m: m["input"].pop("columns"), "columns"),
        (lambda m: m["input"]["columns"].reverse(), "columns"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(change, message, bundle):
    edit_manifest(bundle, change)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(bundle.path)
    assert caught.value.path == str(bundle.path)


@pytest.mark.parametrize(("before", "now"), [(2, 2), (None, "max")])
def test_a_bundle_from_before_widths_went_by_collection_opens(before, now, tmp_path):
    bundle = write(tmp_path / "bundle", encode={**ENCODE, "width": now})
    edit_manifest(bundle, lambda m: m["encode"].pop("width"))
    edit_manifest(bundle, lambda m: m["encode"].update(max_width=before))
    assert open_bundle(bundle.path).encoding == bundle.encoding


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\xff"])
def test_a_manifest_that_is_no_json_object_is_refused(text, bundle):
    (bundle.path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("folder", ["", "bundle/", "./", "a/b/"])
def test_an_archive_is_unpacked_and_opened(folder, bundle, tmp_path):
    members = [(folder + name, content) for name, content in contents_of(bundle)]
    archive = pack(tmp_path / "bundle.tar.gz", members)
    opened = open_bundle(archive, unpack_to=tmp_path / "unpacked")
    assert opened.path == tmp_path / "unpacked"
    assert opened.encoding == bundle.encoding
    assert contents_of(opened) == contents_of(bundle)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    "extra",
    [
        "../evil",
        "a/../../evil",
        "/evil",
        "bundle/../evil",
        "..",
        "evil name",
        "-evil",
        ".hidden",
        special("evil", tarfile.SYMTYPE, "/etc/passwd"),
        special("model2.pt", tarfile.SYMTYPE, "model.pt"),
        special("evil", tarfile.LNKTYPE, "model.pt"),
        special("evil", tarfile.CHRTYPE),
        special("evil", tarfile.BLKTYPE),
        special("evil", tarfile.FIFOTYPE),
    ],
    ids=lambda extra: extra if isinstance(extra, str) else f"{extra.name} of type {extra.type!r}",
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_an_archive_with_anything_but_plain_files_is_refused(extra, place, bundle, tmp_path):
    members = contents_of(bundle)
    members.insert(0 if place == "first" else len(members), (extra, b""))
    archive = pack(tmp_path / "bundle.tar.gz", members)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match="is not a plain file"):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked"
    inside = set(unpacked.iterdir())
    assert set(tmp_path.rglob("*")) == before | inside | {unpacked}
    assert {file.name for file in inside} <= {name for name, _ in contents_of(bundle)}


def test_an_archive_never_replaces_a_file(bundle, tmp_path):
    archive = pack(tmp_path / "bundle.tar.gz", contents_of(bundle))
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "model.pt").write_bytes(b"precious")
    with pytest.raises(BundleError, match="cannot be unpacked"):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "model.pt").read_bytes() == b"precious"


def test_an_archive_that_holds_a_file_twice_is_refused(bundle, tmp_path):
    members = contents_of(bundle)
    archive = pack(tmp_path / "bundle.tar.gz", [*members, ("a/" + members[0][0], b"other")])
    with pytest.raises(BundleError, match="cannot be unpacked"):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("encode"),
        lambda manifest: manifest.update(version=99),
        lambda manifest: manifest["encode"].update(normalise="none of these"),
        lambda manifest: manifest["files"]["specs.json"].update(sha256="0" * 64),
        lambda manifest: manifest["files"].update({"../evil": {"bytes": 1, "sha256": ""}}),
    ],
)
def test_what_is_wrong_in_an_archive_is_told_as_the_archive_s(change, bundle, tmp_path):
    edit_manifest(bundle, change)
    archive = pack(tmp_path / "bundle.tar.gz", contents_of(bundle))
    with pytest.raises(BundleError) as caught:
        open_bundle(archive, unpack_to=tmp_path / "unpacked")
    assert str(caught.value).startswith(f"{archive}: ")
    assert "unpacked" not in str(caught.value)
    assert caught.value.path == str(archive)


def test_an_archive_of_too_many_files_is_refused(bundle, tmp_path):
    more = [(f"file{i}", b"") for i in range(MAX_MEMBERS)]
    archive = pack(tmp_path / "bundle.tar.gz", contents_of(bundle) + more)
    with pytest.raises(BundleError, match="too large"):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_archive_is_refused(part, bundle, tmp_path):
    archive = pack(tmp_path / "bundle.tar.gz", contents_of(bundle))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BundleError):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")


def test_an_archive_needs_a_folder_to_be_unpacked_to(bundle, tmp_path):
    archive = pack(tmp_path / "bundle.tar.gz", contents_of(bundle))
    with pytest.raises(BundleError, match="give a folder"):
        open_bundle(archive)


def test_a_new_bundle_replaces_an_earlier_one_whole(bundle, tmp_path):
    (bundle.path / "left-over").write_text("old", encoding="utf-8")
    write(bundle.path, name="other", model=b"new")
    opened = open_bundle(bundle.path)
    assert opened.name == "other"
    assert opened.model_path.read_bytes() == b"new"
    assert {file.name for file in opened.path.iterdir()} == {*MEMBERS, "manifest.json"}
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"metrics": {"auc": float("nan")}}, ValueError),
        ({"model": None}, TypeError),
        ({"encode": {"normalisation": "maxmin"}}, EncodeError),
    ],
)
def test_a_bundle_that_cannot_be_written_leaves_the_earlier_one(change, error, bundle, tmp_path):
    before = contents_of(bundle)
    with pytest.raises(error):
        write(bundle.path, **change)
    assert contents_of(open_bundle(bundle.path)) == before
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_the_folder_may_be_read_by_others_and_moved(bundle, tmp_path):
    assert bundle.path.stat().st_mode & 0o777 == 0o755
    moved = shutil.move(bundle.path, tmp_path / "moved")
    assert open_bundle(moved).encoding == bundle.encoding


# --- Bundles of strangers -----------------------------------------------------------------------


class Zeros(io.RawIOBase):
    """A file of zeros that takes no memory."""

    def __init__(self, size):
        self.left = size

    def readable(self):
        return True

    def read(self, size=-1):
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return bytes(size)


def pack_with_zeros(path, members, name, size, *, last=True):
    with tarfile.open(path, "w:gz", compresslevel=9) as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        if not last:
            tar.addfile(info, Zeros(size))
        for own, content in members:
            entry = tarfile.TarInfo(own)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if last:
            tar.addfile(info, Zeros(size))
    return path


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*"))


@pytest.mark.parametrize("last", [True, False])
def test_what_a_manifest_does_not_list_is_never_written(last, bundle, tmp_path):
    members = contents_of(bundle)
    archive = pack_with_zeros(tmp_path / "a.tar.gz", members, "more.bin", 50_000_000, last=last)
    opened = open_bundle(archive, unpack_to=tmp_path / "unpacked")
    assert contents_of(opened) == members


@pytest.mark.slow
@pytest.mark.parametrize("last", [True, False])
def test_an_archive_that_unpacks_to_very_much_is_refused(last, bundle, tmp_path):
    members = contents_of(bundle)
    archive = pack_with_zeros(tmp_path / "a.tar.gz", members, "more.bin", 500_000_000, last=last)
    assert archive.stat().st_size < 1_000_000
    with pytest.raises(BundleError, match="too large"):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")
    assert size_of(tmp_path / "unpacked") <= size_of(bundle.path)


def test_a_listed_member_of_another_size_is_not_written(bundle, tmp_path):
    members = [each for each in contents_of(bundle) if each[0] != "model.pt"]
    archive = pack_with_zeros(tmp_path / "a.tar.gz", members, "model.pt", 50_000_000)
    with pytest.raises(BundleError, match=r"model\.pt was altered: 50000000 bytes, expected"):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")
    assert not (tmp_path / "unpacked" / "model.pt").exists()


def test_an_archive_without_a_manifest_is_named(bundle, tmp_path):
    members = [each for each in contents_of(bundle) if each[0] != "manifest.json"]
    archive = pack(tmp_path / "a.tar.gz", members)
    with pytest.raises(BundleError, match=r"no manifest\.json in it"):
        open_bundle(archive, unpack_to=tmp_path / "unpacked")


def limited_memory():
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))


def opened_elsewhere(path, tmp_path):
    """What a process with little memory says that opens a bundle."""
    script = """
import sys
from pathlib import Path
from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.errors import MLaaSError
try:
    open_bundle(sys.argv[1], unpack_to=Path(sys.argv[2], "unpacked"))
except MLaaSError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, path, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limited_memory,  # it has one thread
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = done.stdout.splitlines()
    assert len(line) < 1000
    return line


def header(name, kind, size):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_an_endless_header_of_a_member_takes_no_memory(kind, tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(header("x", kind, 2_000_000_000))
        for _ in range(500):
            file.write(bytes(1_000_000))
    assert "header of a member is too large" in opened_elsewhere(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.slow
def test_headers_that_stand_for_others_without_end_are_refused(tmp_path):
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        for _ in range(5000):
            file.write(header("x", tarfile.GNUTYPE_LONGNAME, 1) + b"a".ljust(512, b"\0"))
    assert "cannot be unpacked" in opened_elsewhere(tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("compress", ["xz", "bz2"])
def test_other_compressions_are_no_archives(compress, bundle, tmp_path):
    with tarfile.open(tmp_path / "a.tar", f"w:{compress}") as tar:
        tar.add(bundle.path, arcname=".")
    with pytest.raises(BundleError, match="cannot be unpacked"):
        open_bundle(tmp_path / "a.tar", unpack_to=tmp_path / "unpacked")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested deeper"),
        ('{"format": ' + "[" * 100 + "]" * 100 + "}", "nested deeper"),
        ('{"format": NaN}', "NaN is not JSON"),
        ('{"format": -Infinity}', "-Infinity is not JSON"),
        ('{"format": 1e999}', "1e999 is too large"),
        ('{"format": 1' + "0" * 5000 + "}", "more than 64 bits"),
        ('{"format": "\\ud800"}', "surrogate"),
        ('{"\\ud800": 1}', "surrogate"),
        ('{"format": 1, "format": 2}', "'format' stands twice"),
    ],
)
def test_a_manifest_that_not_all_read_alike_is_one_line(text, message, bundle, tmp_path):
    (bundle.path / "manifest.json").write_text(text, encoding="utf-8")
    assert message in opened_elsewhere(bundle.path, tmp_path)


def in_place_of(file, kind, tmp_path):
    content = file.read_bytes()
    file.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        file.symlink_to(tmp_path / "elsewhere")
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "hole":
        with file.open("wb") as out:
            out.truncate(1 << 40)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["link", "device", "pipe", "folder", "hole"])
@pytest.mark.parametrize("member", [*MEMBERS, "manifest.json"])
def test_a_member_that_is_no_plain_file_is_not_read(member, kind, bundle, tmp_path):
    in_place_of(bundle.path / member, kind, tmp_path)
    line = opened_elsewhere(bundle.path, tmp_path)
    assert member in line
    assert ("bytes" if kind == "hole" else "is missing, or is not a plain file") in line


def relist(bundle, member):
    content = (bundle.path / member).read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_manifest(bundle, lambda m: m["files"].update({member: entry}))


@pytest.mark.slow
def test_a_model_that_unpacks_to_very_much_is_refused(bundle, tmp_path):
    with zipfile.ZipFile(bundle.path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/0", bytes(200_000_000))
    relist(bundle, "model.pt")
    assert "bytes unpack to 200,000,000" in opened_elsewhere(bundle.path, tmp_path)


ODD = [None, True, -1, 10**9, 1e300, "", "object", "../x", [], [1], {}, {"a": 1}, [None], "Jet"]


def places_in(value, place=()):
    yield place
    pairs = value.items() if isinstance(value, dict) else ()
    pairs = enumerate(value[:5]) if isinstance(value, list) else pairs
    for key, inner in pairs:
        yield from places_in(inner, (*place, key))


def replaced(document, place, value):
    if not place:
        return value
    changed = json.loads(json.dumps(document))
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


@pytest.mark.parametrize("member", ["manifest.json", "specs.json"])
def test_whatever_stands_anywhere_a_bundle_is_refused_in_one_line_or_opened(member, bundle):
    path = bundle.path / member
    document = json.loads(path.read_text(encoding="utf-8"))
    draw = random.Random(5)  # noqa: S311  # no secret
    refused = []
    for place in places_in(document):
        for value in draw.sample(ODD, 6):
            path.write_text(json.dumps(replaced(document, place, value)), encoding="utf-8")
            if member == "specs.json":
                relist(bundle, member)
            try:
                open_bundle(bundle.path)
            except BundleError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in line for line in refused)
