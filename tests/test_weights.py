"""Where a network's file is looked for, and what is said when it is not there."""

import dataclasses
import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from animebg_core.errors import StyleError, WeightsNotFoundError
from animebg_core.files import download, locate, resolve, verify
from animebg_core.files.locate import WEIGHTS_DIR_VARIABLE, find_weights
from animebg_core.files.resolve import resolve_weights
from animebg_core.files.styles import DEFAULT_STYLE, STYLES, Style

SHINKAI = STYLES["shinkai"]
LITE = Style("shinkai-lite", "Makoto Shinkai (Lite)", "", "lite.safetensors", 1, "0" * 64, "MIT")


@dataclasses.dataclass(frozen=True)
class Places:
    """Every place of the search, empty: the user's folder, the pack's, the hub's cache."""

    named: Path
    pack: Path
    cache: Path


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    found = Places(tmp_path / "named \u00e9\u5199", tmp_path / "pack", tmp_path / "cache")
    for folder in dataclasses.astuple(found):
        folder.mkdir()
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(found.named))
    monkeypatch.setattr(locate, "pack_folder", lambda: found.pack)
    monkeypatch.setattr(download, "pack_folder", lambda: found.pack)

    def in_hub_cache(style: Style) -> Path | None:
        path = found.cache / style.file
        return path if path.exists() else None

    monkeypatch.setattr(locate, "find_in_hub_cache", in_hub_cache)
    monkeypatch.setattr(verify, "find_in_hub_cache", in_hub_cache)
    monkeypatch.setattr(download, "_fetch", lambda *_: pytest.fail("a download was begun"))
    monkeypatch.setattr(resolve, "_looked_at", set())
    return found


def put(folder: Path, name: str = SHINKAI.file, content: bytes = b"x") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


# --- The table ---


def test_the_table_has_the_four_published_styles_in_order() -> None:
    assert list(STYLES) == ["shinkai", "hosoda", "miyazaki", "kon"]
    assert [style.key for style in STYLES.values()] == list(STYLES)
    assert DEFAULT_STYLE in STYLES
    for name in ("label", "repository", "file", "sha256"):
        assert len({getattr(style, name) for style in STYLES.values()}) == 4
    for style in STYLES.values():
        assert style.size == 44_529_096
        assert len(bytes.fromhex(style.sha256)) == 32
        assert style.sha256 == style.sha256.lower()


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        STYLES["mine"] = SHINKAI
    with pytest.raises(dataclasses.FrozenInstanceError):
        SHINKAI.file = "mine.pth"


# --- The order of search ---


def test_the_search_goes_from_the_users_folder_to_the_hubs_cache(places: Places) -> None:
    assert find_weights(SHINKAI) is None
    for folder in (places.cache, places.pack, places.named):
        path = put(folder)
        assert find_weights(SHINKAI) == path
        # What the hub's cache holds is verified first: see test_download.py.
        assert folder == places.cache or resolve_weights("shinkai") == path


def test_a_converted_file_goes_before_the_published_one_beside_it(places: Places) -> None:
    put(places.named)
    converted = put(places.named, "shinkai_makoto.safetensors")
    assert find_weights(SHINKAI) == converted
    assert find_weights(STYLES["kon"]) is None


def test_a_folder_that_is_given_is_the_only_place(places: Places, tmp_path: Path) -> None:
    for folder in (places.named, places.pack, places.cache):
        put(folder)
    given = tmp_path / "given"
    given.mkdir()
    assert find_weights(SHINKAI, given) is None
    with pytest.raises(WeightsNotFoundError):
        resolve_weights("shinkai", weights_dir=given)
    path = put(given)
    assert find_weights(SHINKAI, str(given)) == path
    assert resolve_weights("shinkai", weights_dir=given) == path


def test_a_file_that_is_given_is_taken_whatever_its_name(places: Places) -> None:
    path = put(places.pack, "mine.pth")
    assert find_weights(SHINKAI, path) == path
    assert resolve_weights("kon", weights_dir=path) == path


def test_the_home_folder_may_be_written_as_a_tilde(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = put(places.named)
    for spelling in (f"~/{places.named.name}", f"~/{places.named.name}/{path.name}"):
        assert find_weights(SHINKAI, spelling) == path
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, f"~/{places.named.name}")
    assert find_weights(SHINKAI) == path
    assert resolve_weights(f"~/{places.named.name}/{path.name}") == path


def test_a_model_folder_is_searched_first(places: Places, tmp_path: Path) -> None:
    named = put(places.named)
    models = tmp_path / "models"
    models.mkdir()
    assert resolve_weights("shinkai", folder=models) == named
    path = put(models)
    assert resolve_weights("shinkai", folder=models) == path


# --- What is no style, and what is not there ---


def test_an_unknown_style_is_told_the_keys(places: Places) -> None:
    with pytest.raises(StyleError, match='"ghibli".* shinkai, hosoda, miyazaki, kon,'):
        resolve_weights("ghibli")
    with pytest.raises(StyleError):
        resolve_weights("Makoto Shinkai")


def test_any_file_is_a_style_by_its_path(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(places.pack, "my net.bin")
    assert resolve_weights(path) == path
    assert resolve_weights(str(path)) == path
    monkeypatch.chdir(places.pack)
    assert resolve_weights("my net.bin") == Path("my net.bin")


@pytest.mark.parametrize("suffix", ["", ".pth", ".safetensors"])
def test_a_path_that_leads_nowhere_is_told_what_lies_beside_it(places: Places, suffix: str) -> None:
    put(places.pack, "b.pth")
    put(places.pack, "a.pth")
    with pytest.raises(WeightsNotFoundError, match=r"wanted.* only: a\.pth, b\.pth"):
        resolve_weights(str(places.pack / f"wanted{suffix}"))


def test_a_bare_file_name_is_a_path_and_not_a_style(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places.pack)
    with pytest.raises(WeightsNotFoundError, match="which is empty"):
        resolve_weights("wanted.pth")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_and_a_link_to_nothing_are_no_styles(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "link.pth").symlink_to(tmp_path / "nothing.pth")
    for name in ("pipe.pth", "link.pth"):
        with pytest.raises(WeightsNotFoundError, match=f"{name} is no regular file"):
            resolve_weights(tmp_path / name)


def test_a_folder_is_no_style(places: Places) -> None:
    with pytest.raises(WeightsNotFoundError, match="is a folder"):
        resolve_weights(places.pack)


def test_the_error_lists_what_is_in_the_folder_sorted_and_not_all_of_it(places: Places) -> None:
    for number in reversed(range(12)):
        put(places.pack, f"{number:02}.pth")
    names = ", ".join(f"{number:02}.pth" for number in range(10))
    with pytest.raises(WeightsNotFoundError) as caught:
        resolve_weights("shinkai", weights_dir=places.pack)
    message = str(caught.value)
    assert message.startswith("shinkai_makoto.pth (or .safetensors) was looked for in")
    assert f"{places.pack}, where there is only: {names} and 2 more;" in message


def test_a_folder_that_does_not_exist_is_said_to_be_missing(places: Places) -> None:
    with pytest.raises(WeightsNotFoundError, match="nowhere, which does not exist"):
        resolve_weights("shinkai", weights_dir=places.pack / "nowhere")


def test_without_a_download_the_error_says_how_to_get_the_file(places: Places) -> None:
    with pytest.raises(WeightsNotFoundError) as caught:
        resolve_weights("kon", download=False)
    message = str(caught.value)
    assert "animebg download kon" in message
    assert f"kon_satoshi.pth by hand and put it into {places.named}" in message


# --- Networks that the pack ships ---


def test_a_shipped_network_is_found_and_never_downloaded(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (download, resolve):
        monkeypatch.setattr(module, "LITE_STYLES", {LITE.key: LITE})
    with pytest.raises(WeightsNotFoundError, match="belongs to this package"):
        resolve_weights("shinkai-lite")
    with pytest.raises(WeightsNotFoundError, match="belongs to this package"):
        download.download_weights(LITE)
    path = put(places.pack, LITE.file)
    assert resolve_weights("shinkai-lite") == path


def test_a_shipped_network_is_offered_where_a_download_failed(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (download, resolve):
        monkeypatch.setattr(module, "LITE_STYLES", {LITE.key: LITE})
    for key in ("shinkai", "kon"):
        with pytest.raises(WeightsNotFoundError) as caught:
            resolve_weights(key, download=False)
        assert "lite" not in str(caught.value)
    put(places.pack, LITE.file)
    for key in ("shinkai", "kon"):
        with pytest.raises(
            WeightsNotFoundError, match=r"the style Makoto Shinkai \(Lite\) \(shinkai-lite\), which"
        ):
            resolve_weights(key, download=False)


# --- Other bytes under a published name ---


def test_other_bytes_under_a_published_name_are_used_with_one_warning(
    places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(places.named, content=b"mine")
    with caplog.at_level(logging.WARNING):
        for style in ("shinkai", "shinkai", path):
            assert resolve_weights(style) == path
    assert len(caplog.messages) == 1
    assert str(path) in caplog.messages[0]
    assert path.read_bytes() == b"mine"
    put(places.named, content=b"mine, changed")
    with caplog.at_level(logging.WARNING):
        resolve_weights("shinkai")
    assert len(caplog.messages) == 2


def test_the_published_bytes_and_conversions_bring_no_warning(
    places: Places, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"published").hexdigest()
    style = dataclasses.replace(SHINKAI, size=9, sha256=digest)
    monkeypatch.setattr(resolve, "STYLES", {"shinkai": style})
    put(places.named, content=b"published")
    with caplog.at_level(logging.WARNING):
        resolve_weights("shinkai")
        put(places.named, "shinkai_makoto.safetensors", b"converted")
        resolve_weights("shinkai")
        resolve_weights(put(places.pack, "mine.pth"))
        assert not caplog.messages
        put(places.named, content=b"publishe!")
        resolve_weights(places.named / SHINKAI.file)
        assert len(caplog.messages) == 1


# --- What an import costs ---


def test_the_import_loads_no_part_of_huggingface_hub() -> None:
    package = Path(resolve.__file__).parent.parent
    script = (
        "import sys, types\n"
        "package = types.ModuleType('animebg_core')\n"
        f"package.__path__ = [{str(package)!r}]\n"
        "sys.modules['animebg_core'] = package\n"
        "import animebg_core.files.resolve\n"
        "print([name for name in sys.modules if name.startswith('huggingface_hub.')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
