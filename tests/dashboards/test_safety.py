"""What strangers send: paths, links, uploads, stores and prompts. Refused with a message, or shown as the text it is."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
from pages_support import Open, said, write

from shared import uploads
from shared.roots import confine, find_traces, folder_inside
from vico_lens.errors import InputError, StoreError
from vico_lens.store.opening import open_trace
from vico_lens.testing.traces import fake_sites, fake_tokens


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "allowed"
    (folder / "run.zarr").mkdir(parents=True)
    (tmp_path / "secret.zarr").mkdir()
    (tmp_path / "allowed-not" / "run.zarr").mkdir(parents=True)  # a neighbour whose name begins as the root's
    return folder


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "../secret.zarr",
        "run.zarr/../../secret.zarr",
        "../allowed-not/run.zarr",
        "~/x",
        "/proc/self/environ",
        "../missing",
    ],
)
def test_paths_outside_the_roots(root: Path, path: str) -> None:
    with pytest.raises(InputError, match="outside the folders that this dashboard may read"):
        confine(path, (root,))


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "x" * 2000, "s3://bucket/run.zarr", "http://localhost/x", "run\n.zarr"])
def test_what_is_no_path(root: Path, path: str) -> None:
    with pytest.raises(InputError, match="expected a path"):
        confine(path, (root,))


def test_paths_inside(root: Path, tmp_path: Path) -> None:
    assert confine("run.zarr", (root,)) == root / "run.zarr"
    assert confine(str(root / "run.zarr"), (tmp_path, root)) == root / "run.zarr"
    with pytest.raises(InputError, match="there is nothing"):
        confine("missing.zarr", (root,))


def test_symbolic_links_are_followed_before_they_are_judged(root: Path, tmp_path: Path) -> None:
    (root / "link.zarr").symlink_to(tmp_path / "secret.zarr")
    with pytest.raises(InputError, match="outside"):
        confine("link.zarr", (root,))
    (root / "fine.zarr").symlink_to(root / "run.zarr")
    assert confine("fine.zarr", (root,)) == root / "run.zarr"
    (root / "run.zarr" / "deep").mkdir()
    (root / "run.zarr" / "deep" / "c").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="symbolic link that leads out"):
        folder_inside(root / "run.zarr", (root,))
    assert root / "link.zarr" not in find_traces((root,))


def test_traces_are_looked_for_near_the_top_only(tmp_path: Path) -> None:
    for place in ("a.zarr", "one/b.zarr", "one/two/c.zarr", "one/two/three/d.zarr", ".hidden/e.zarr"):
        (tmp_path / place).mkdir(parents=True)
    assert {path.name for path in find_traces((tmp_path,))} == {"a.zarr", "b.zarr", "c.zarr"}
    assert {path.name for path in find_traces((tmp_path,), depth=0)} == {"a.zarr"}


def test_the_page_refuses_a_link_to_a_path_outside(open_page: Open, tmp_path: Path) -> None:
    app = open_page(root=tmp_path, trace="../../etc/passwd")
    assert not app.exception
    assert "This trace cannot be opened." in said(app) and "root:" not in said(app)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return content


def receive(content: io.BytesIO, folder: Path) -> Path:
    return uploads.receive(content, len(content.getvalue()), folder)


def test_a_good_upload_opens(tmp_path: Path, one_concept: Path) -> None:
    for prefix in ("", "circle.zarr/"):
        members = {
            prefix + file.relative_to(one_concept).as_posix(): file.read_bytes()
            for file in one_concept.rglob("*")
            if file.is_file()
        }
        content = zipped(members, zipfile.ZIP_DEFLATED)
        place = receive(content, tmp_path)
        assert open_trace(place).attrs["prompt"] == "a red circle"
        assert receive(content, tmp_path) == place


def test_an_upload_through_the_page(open_page: Open, one_concept: Path) -> None:
    members = {file.relative_to(one_concept).as_posix(): file.read_bytes() for file in one_concept.rglob("*") if file.is_file()}
    app = open_page()
    app.sidebar.file_uploader[0].set_value(("circle.zip", zipped(members).getvalue(), "application/zip"))
    next(button for button in app.sidebar.button if button.label == "Open upload").click().run()
    assert not app.exception and "red circle" in said(app) and "purple circle" not in said(app)
    app = open_page()
    app.sidebar.file_uploader[0].set_value(("evil.zip", zipped({"../evil": b"x"}).getvalue(), "application/zip"))
    next(button for button in app.sidebar.button if button.label == "Open upload").click().run()
    assert "This upload was not opened." in said(app) and "leads out" in said(app) and "purple circle" in said(app)


def test_the_server_listens_to_this_machine_only_and_limits_uploads() -> None:
    import tomllib

    from pages_support import DASHBOARDS

    told = tomllib.loads((DASHBOARDS / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert told["server"]["address"] == "localhost"
    assert told["server"]["maxUploadSize"] << 20 == uploads.LARGEST
    assert told["client"]["showErrorDetails"] == "none"


def test_three_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    class Untouched(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError("an upload that is too large was read")

    with pytest.raises(InputError, match="at most 200 MB; got 3,072 MB"):
        uploads.receive(Untouched(), 3 << 30, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:/evil"])
def test_members_that_lead_out(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    with pytest.raises(InputError, match="leads out"):
        receive(zipped({"zarr.json": b"{}", name: b"x"}), folder)
    assert list(folder.iterdir()) == [] and not (tmp_path / "evil").exists()


def test_links_in_a_zip(tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("zarr.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="got a link"):
        receive(content, tmp_path)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="zip bomb"):
        receive(zipped({"zarr.json": b"{}", "c/0": bytes(8 << 20)}, zipfile.ZIP_DEFLATED), tmp_path)
    monkeypatch.setattr(uploads, "_MEMBERS", 10)
    with pytest.raises(InputError, match="at most 10 files"):
        receive(zipped({f"c/{number}": b"x" for number in range(11)}), tmp_path)
    monkeypatch.setattr(uploads, "_UNPACKED", 1000)
    with pytest.raises(InputError, match="says it is larger"):
        receive(zipped({"zarr.json": os.urandom(2000)}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_counted_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zip whose directory understates a member: what comes out is what counts, and nothing stays behind."""
    content = zipped({"zarr.json": b"{}" + bytes(200_000)}, zipfile.ZIP_DEFLATED)
    lied = content.getvalue().replace((200_002).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(InputError, match=r"cannot be unpacked|more than"):
        receive(io.BytesIO(lied), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"just text"])
def test_what_is_no_zip(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="cannot be unpacked"):
        receive(io.BytesIO(content), tmp_path)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"zarr\.json"):
        receive(zipped({"readme.txt": b"hello"}), tmp_path)


class Exploding:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, (str(self.path),)


def test_a_store_that_would_unpickle_is_refused_unread(tmp_path: Path, one_concept: Path) -> None:
    import pickle
    import shutil

    crafted, sprung = tmp_path / "crafted.zarr", tmp_path / "sprung"
    shutil.copytree(one_concept, crafted)
    root = json.loads((crafted / "zarr.json").read_text())
    del root["consolidated_metadata"]
    (crafted / "zarr.json").write_text(json.dumps(root))
    text = json.loads((crafted / "token_text" / "zarr.json").read_text())
    text["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
    (crafted / "token_text" / "zarr.json").write_text(json.dumps(text))
    chunks = [file for file in (crafted / "token_text").iterdir() if file.name != "zarr.json"]
    assert chunks
    for chunk in chunks:
        chunk.write_bytes(pickle.dumps(Exploding(sprung)))
    with pytest.raises(
        StoreError, match=r"token_text of .* asks for the codec numcodecs\.pickle|Unknown codec: 'numcodecs\.pickle'"
    ):
        open_trace(crafted)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("array", "change", "message"),
    [
        ("token_id", {"shape": [1 << 40]}, "more than any coordinate"),
        ("token_id", {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 31]}}}, "above 1 GiB"),
    ],
)
def test_absurd_declared_sizes_are_refused(
    tmp_path: Path, one_concept: Path, array: str, change: dict[str, object], message: str
) -> None:
    import shutil

    crafted = tmp_path / "crafted.zarr"
    shutil.copytree(one_concept, crafted)
    root = json.loads((crafted / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"][array] |= change
    (crafted / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=message):
        open_trace(crafted)


@pytest.mark.parametrize("page", ["overview", "maps", "flow", "compare"])
def test_a_prompt_with_markup_is_text(open_page: Open, tmp_path: Path, page: str) -> None:
    prompt = "a <script>alert(1)</script> red circle and a blue square <img src=x onerror=alert(1)>"
    sites = fake_sites("unet", tokens=60)
    trace = write(tmp_path / "<img src=x>.zarr", sites, fake_tokens(prompt, 60), {"prompt": prompt})
    app = open_page(page, trace)
    assert not app.exception
    bodies = said(app) + "".join(block.value for block in [*app.markdown, *app.caption])
    assert "<script" not in bodies and "onerror=alert(1)>" not in bodies.replace("onerror=alert(1)&gt;", "")
    assert "&lt;script&gt;" in bodies


def test_right_to_left_words_are_set_apart(open_page: Open, tmp_path: Path) -> None:
    prompt = "a red circle and a \u05db\u05d3\u05d5\u05e8 ball"
    trace = write(tmp_path / "rtl.zarr", fake_sites("unet", tokens=40), fake_tokens(prompt, 40), {"prompt": prompt})
    app = open_page("overview", trace)
    assert not app.exception
    text = said(app)
    assert '<p class="prompt" dir="auto">' in text and "<bdi" in text and "\u05db\u05d3\u05d5\u05e8" in text


def test_labels_of_widgets_do_not_read_markdown() -> None:
    from shared.state import label

    assert label("[dog](javascript:alert(1)) :red[x] $y$") == r"\[dog\]\(javascript\:alert\(1\)\) \:red\[x\] \$y\$"
