"""Downloads, end to end: real processes, a real HTTP server that speaks the hub's protocol.

Every failure is followed by a run that must end with the right file, in the hub's cache and in a
model folder alike.
"""

import hashlib
import os
import random
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest
from hub import FORBIDDEN, FULL, Child, Downloads, Fail, Fault, Hub, Job, Outcome

from animebg_core.files.download import STAGING
from animebg_core.files.reach import reach
from animebg_core.files.styles import Style

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the children are forked")

FILE = "net.pth"
CONTENT = random.Random(1).randbytes(300_000)
WRONG = random.Random(2).randbytes(300_000)
TARGETS = ("cache", "folder")
SLOW = Fault(rate=600_000)  # half a second for CONTENT


@dataclass(frozen=True)
class Machine:
    """The hub, a home with the hub's cache, and two processes there: one sees the network."""

    hub: Hub
    home: Path
    online: Downloads
    offline: Downloads
    numbers: Iterator[int] = field(default_factory=count)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    scratch = tmp_path_factory.mktemp("downloads")
    home = scratch / "home"
    with Hub() as hub:
        environment = {
            "HF_HOME": str(home),
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": "hf_test",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_HUB_ETAG_TIMEOUT": "10",
        }
        with (
            Downloads(scratch / "online", **environment) as online,
            Downloads(scratch / "offline", **environment, HF_HUB_OFFLINE="1") as offline,
        ):
            yield Machine(hub, home, online, offline)


class Download:
    """One style on the hub, and the place where it is to go."""

    def __init__(self, machine: Machine, name: str, folder: Path | None) -> None:
        digest = hashlib.sha256(CONTENT).hexdigest()
        self.machine = machine
        self.style = Style(name, name, f"tests/{name}", FILE, len(CONTENT), digest, "MIT")
        self.folder = folder
        self.repository = machine.hub.repositories[self.style.repository]
        self.repository.content = CONTENT

    def job(self, **options: object) -> Job:
        folder = None if self.folder is None else str(self.folder)
        return Job(asdict(self.style), folder=folder, **options)

    def run(self, **options: object) -> Outcome:
        return self.machine.online.run(self.job(**options))

    def start(self, **options: object) -> Child:
        return self.machine.online.start(self.job(**options))

    def fails(self, error: str, **options: object) -> str:
        """Runs, expects `error`, and gives its message; nothing wrong may have been published."""
        return self.failed(self.run(**options), error)

    def failed(self, outcome: Outcome, error: str) -> str:
        assert (outcome.error, outcome.path) == (error, None), outcome
        assert "\n" not in outcome.message
        if self.folder is not None:
            assert not (self.folder / FILE).exists()
        return outcome.message

    def succeeds(self, **options: object) -> Outcome:
        outcome = self.run(**options)
        self.succeeded(outcome)
        return outcome

    def succeeded(self, outcome: Outcome) -> None:
        assert outcome.path is not None, outcome
        assert Path(outcome.path).read_bytes() == CONTENT
        if self.folder is not None:
            assert Path(outcome.path) == self.folder / FILE
            assert [entry.name for entry in self.folder.iterdir()] == [FILE], "staging is left"

    def gets(self) -> list[dict[str, str]]:
        """The headers of the requests for the bytes."""
        return [headers for method, headers in self.repository.requests if method == "GET"]


@pytest.fixture(params=TARGETS)
def download(
    request: pytest.FixtureRequest, machine: Machine, tmp_path: Path
) -> Iterator[Download]:
    yield _download(request.param, machine, tmp_path)


def _download(target: str, machine: Machine, tmp_path: Path) -> Download:
    # Not ASCII, and not there yet: as a user's model folder may be.
    folder = tmp_path / "\u30e2\u30c7\u30eb \u00e4" / "animebg" if target == "folder" else None
    return Download(machine, f"style-{next(machine.numbers)}", folder)


@pytest.fixture
def servers(monkeypatch) -> Iterator[dict[str, list[tuple[str, int]]]]:
    """Names to addresses, as `reach` finds them: to be filled."""
    known: dict[str, list[tuple[str, int]]] = {}
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda name, port, **_: [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in known[name]
        ],
    )
    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    with socket.create_server(("127.0.0.1", 0)) as lives:
        known["lives"] = [lives.getsockname()]
        yield known


@pytest.mark.skipif(sys.platform != "linux", reason="drops packets where a queue is full")
def test_addresses_that_drop_packets_take_two_seconds_in_all(servers) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        held = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            held.append(one)
        servers["hangs"] = [full.getsockname()] * 8
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            reach("http://hangs")
        assert 1.9 < time.monotonic() - began < 2.9
        servers["hangs"] += servers["lives"]
        began = time.monotonic()
        reach("http://hangs")
        assert time.monotonic() - began < 1
        for one in held:
            one.close()


def test_the_proxy_is_what_is_to_be_reached(servers, monkeypatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        servers["closed"] = [closed.getsockname()]
        with pytest.raises(OSError, match="refused"):
            reach("https://closed/path")
        monkeypatch.setenv("https_proxy", "http://lives:3128")
        reach("https://unknown")
        reach("https://closed")
        monkeypatch.setenv("no_proxy", "closed")
        with pytest.raises(OSError, match="refused"):
            reach("https://closed")
        monkeypatch.setenv("https_proxy", "closed:3128")
        with pytest.raises(OSError, match="refused"):
            reach("https://lives")


def test_a_fresh_download_is_whole_and_needs_no_second_one(download: Download) -> None:
    outcome = download.succeeds()
    assert outcome.progress[0] == [0, len(CONTENT)]
    assert outcome.progress[-1] == [len(CONTENT), len(CONTENT)]
    requests = len(download.repository.requests)
    download.succeeds()
    assert len(download.repository.requests) == requests


def test_progress_grows_while_the_bytes_arrive(download: Download) -> None:
    download.repository.always = SLOW
    done = [call[0] for call in download.succeeds().progress]
    assert done == sorted(done)
    assert len({count for count in done if 0 < count < len(CONTENT)}) >= 2


def test_the_token_goes_to_the_hub_and_not_to_its_file_server(download: Download) -> None:
    download.succeeds()
    sent = {
        method: headers.get("authorization") for method, headers in download.repository.requests
    }
    assert sent == {"HEAD": "Bearer hf_test", "GET": None}


def test_a_connection_cut_at_random_bytes_is_resumed(download: Download) -> None:
    cuts = [random.Random(download.style.key).randrange(2 * 4096, 90_000) for _ in range(3)]
    download.repository.faults.extend(Fault(cut=cut) for cut in cuts)
    # By the same run, or with huggingface_hub before 2.0 by the next one.
    outcome = download.run()
    while outcome.path is None and len(download.gets()) < 4:
        download.failed(outcome, "DownloadError")
        outcome = download.run()
    download.succeeded(outcome)
    starts = [headers.get("range") for headers in download.gets()]
    assert len(starts) == 4
    assert starts[0] is None
    assert None not in starts[1:]


def test_a_connection_cut_for_ever_fails_and_the_next_run_succeeds(download: Download) -> None:
    download.repository.always = Fault(cut=0)
    assert download.style.repository in download.fails("DownloadError")
    download.repository.always = Fault()
    download.succeeds()


def test_wrong_bytes_are_set_aside_and_fetched_again_in_the_same_run(download: Download) -> None:
    download.repository.faults.append(Fault(body=WRONG))
    outcome = download.succeeds()
    assert len(download.gets()) == 2
    assert "not the published file" in outcome.log[0]


@pytest.mark.parametrize("body", [CONTENT[:100_000], CONTENT + WRONG], ids=["short", "long"])
def test_another_length_is_never_taken_for_the_file(download: Download, body: bytes) -> None:
    # The server's own length is wrong too, so no connection error gives it away.
    download.repository.always = Fault(body=body)
    download.fails("DownloadError")
    download.repository.always = Fault()
    download.succeeds()


@pytest.mark.parametrize("size", [len(CONTENT), 1000])
def test_a_server_with_another_file_is_a_checksum_error(download: Download, size: int) -> None:
    # Its listing agrees with its bytes: only the published size and hash tell.
    download.repository.content = WRONG[:size]
    message = download.fails("ChecksumError")
    assert ("instead of 300,000" in message) == (size != len(CONTENT))
    download.repository.content = CONTENT
    download.succeeds()


def test_bytes_that_stay_wrong_are_a_checksum_error_and_not_used_later(download: Download) -> None:
    download.repository.always = Fault(body=WRONG)
    message = download.fails("ChecksumError")
    assert download.style.sha256[:16] in message
    assert len(download.gets()) == 2
    download.fails("ChecksumError")  # again from the server, not from what was set aside
    assert len(download.gets()) == 4
    download.repository.always = Fault()
    download.succeeds()


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_refusal_names_the_file_and_where_to_put_it(
    machine: Machine, tmp_path: Path, status: int
) -> None:
    for target in TARGETS:
        download = _download(target, machine, tmp_path)
        download.repository.always = Fault(status=status)
        message = download.fails("DownloadError")
        url = f"{machine.hub.endpoint}/{download.style.repository}/resolve/main/{FILE}"
        assert f"status {status}" in message
        assert f"download {url} by hand and put it into {download.folder or ''}" in message
        download.repository.always = Fault()
        download.succeeds()


def test_a_silent_server_times_out_and_the_next_run_succeeds(
    machine: Machine, tmp_path: Path
) -> None:
    # Together, because the hub tries six times, one second each.
    downloads = [_download(target, machine, tmp_path) for target in TARGETS]
    for download in downloads:
        download.repository.always = Fault(stall=0)
    children = [download.start() for download in downloads]
    for download, child in zip(downloads, children, strict=True):
        message = download.failed(child.wait(), "DownloadError")
        assert "did not answer in time" in message or "timed out" in message
        download.repository.always = Fault()
        download.succeeds()


def test_a_server_that_falls_silent_half_way_is_resumed(download: Download) -> None:
    download.repository.faults.append(Fault(stall=150_000))
    download.succeeds()
    assert "range" in download.gets()[1]


def test_two_processes_at_once_both_end_with_the_file(download: Download) -> None:
    download.repository.always = SLOW
    children = [download.start(), download.start()]
    for outcome in [child.wait() for child in children]:
        assert outcome.path is not None, outcome
        assert Path(outcome.path).read_bytes() == CONTENT
    download.succeeds()


@pytest.mark.parametrize("cleared", [False, True])
def test_a_file_that_was_published_meanwhile_is_used_and_not_replaced(
    machine: Machine, tmp_path: Path, cleared: bool
) -> None:
    download = _download("folder", machine, tmp_path)
    download.repository.always = SLOW
    assert download.folder is not None
    child = download.start()
    while not download.gets():
        assert not child.finishes_in(0.01)
    if cleared:  # as the other process does at its end
        shutil.rmtree(download.folder / STAGING)
    (download.folder / FILE).write_bytes(b"theirs")
    assert child.wait().path == str(download.folder / FILE)
    assert (download.folder / FILE).read_bytes() == b"theirs"
    assert not (download.folder / STAGING).exists()


@pytest.mark.parametrize("resolve", [False, True])
def test_what_a_process_killed_after_its_end_has_left_is_cleared_away(
    machine: Machine, tmp_path: Path, resolve: bool
) -> None:
    download = _download("folder", machine, tmp_path)
    download.succeeds()
    assert download.folder is not None
    (download.folder / STAGING / download.style.key / "blobs").mkdir(parents=True)
    download.succeeds(resolve=resolve)


def test_two_styles_at_once_into_one_folder_do_not_disturb_each_other(
    machine: Machine, tmp_path: Path
) -> None:
    first = _download("folder", machine, tmp_path)
    second = _download("folder", machine, tmp_path)
    second.style = replace(second.style, file="other.pth")
    first.repository.always, second.repository.always = SLOW, Fault(rate=2 * 600_000)
    children = [first.start(), second.start()]
    paths = [Path(child.wait().path or "") for child in children]
    assert [path.name for path in paths] == [FILE, "other.pth"]
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert set(paths[0].parent.iterdir()) == set(paths)


def test_two_processes_at_once_both_survive_wrong_bytes(download: Download) -> None:
    download.repository.faults.append(Fault(body=WRONG, rate=600_000))
    children = [download.start(), download.start()]
    for outcome in [child.wait() for child in children]:
        assert outcome.path is not None, outcome
        assert Path(outcome.path).read_bytes() == CONTENT
    download.succeeds()


def test_a_process_killed_at_any_moment_leaves_nothing_wrong(
    machine: Machine, tmp_path: Path
) -> None:
    """Twenty random moments, from a download's start to just after its end."""
    moments = random.Random(3)

    def kill(number: int) -> bool:
        target = TARGETS[number % 2]
        download = _download(target, machine, tmp_path / str(number))
        download.repository.always = SLOW
        child = download.start()
        before = child.finishes_in(delays[number])
        child.kill()
        if download.folder is not None and (download.folder / FILE).exists():
            assert (download.folder / FILE).read_bytes() == CONTENT
        download.repository.always = Fault()
        download.succeeds()
        return before

    delays = [moments.uniform(0.0, 0.8) for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        finished = list(pool.map(kill, range(20)))
    assert finished.count(False) >= 10, "most were to be killed before their end"


def test_cancel_comes_out_unchanged_and_the_next_run_succeeds(download: Download) -> None:
    download.repository.always = SLOW
    outcome = download.run(cancel_at=20_000)
    assert download.failed(outcome, "Cancelled") == "stop"
    assert 20_000 <= outcome.progress[-1][0] < len(CONTENT)
    download.repository.always = Fault()
    download.succeeds()


def test_cancel_needs_no_answer_from_a_silent_server(download: Download) -> None:
    download.repository.always = Fault(stall=0)
    outcome = download.run(cancel_after=0.3)
    assert download.failed(outcome, "Cancelled") == "stop"
    assert outcome.seconds < 0.9  # the hub's own timeout is one second, and it tries six times
    download.repository.always = Fault()
    download.succeeds()


def test_cancel_at_the_last_call_publishes_nothing(download: Download) -> None:
    assert download.failed(download.run(cancel_at=len(CONTENT)), "Cancelled") == "stop"
    download.succeeds()


def test_offline_says_so_and_uses_what_is_there(download: Download, machine: Machine) -> None:
    outcome = machine.offline.run(download.job())
    message = download.failed(outcome, "DownloadError")
    assert "HF_HUB_OFFLINE is set" in message
    assert FILE in message
    assert f"put it into {download.folder or ''}" in message
    assert not download.repository.requests
    download.succeeds()
    download.succeeded(machine.offline.run(download.job()))


@pytest.mark.parametrize("written", [".incomplete", ".part"])
def test_a_full_disk_is_said_in_plain_words(machine: Machine, tmp_path: Path, written: str) -> None:
    for target in TARGETS if written == ".incomplete" else ["folder"]:
        download = _download(target, machine, tmp_path)
        message = download.fails("DownloadError", fail=Fail("write", written, FULL))
        assert "the disk is full" in message
        download.succeeds()


def test_a_place_that_cannot_be_written_is_named(download: Download) -> None:
    place = (
        download.folder or download.machine.home / "hub" / f"models--tests--{download.style.key}"
    )
    message = download.fails("DownloadError", fail=Fail("mkdir", str(place), FORBIDDEN))
    assert f"{place}" in message
    assert "cannot be written" in message
    download.succeeds()


def test_a_target_that_cannot_be_renamed_to_is_a_download_error(
    machine: Machine, tmp_path: Path
) -> None:
    download = _download("folder", machine, tmp_path)
    message = download.fails("DownloadError", fail=Fail("replace", f"animebg/{FILE}", FORBIDDEN))
    assert "cannot be written" in message
    download.succeeds()


def test_a_file_of_the_user_is_used_and_never_changed(machine: Machine, tmp_path: Path) -> None:
    download = _download("folder", machine, tmp_path)
    assert download.folder is not None
    download.folder.mkdir(parents=True)
    own = download.folder / FILE
    own.write_bytes(b"mine")
    for resolve in (False, True, True):
        outcome = download.run(resolve=resolve)
        assert outcome.path == str(own)
        assert len(outcome.log) == resolve, "one warning, from the run that is to load it"
    assert own.read_bytes() == b"mine"
    assert not download.repository.requests


def test_a_cached_file_is_verified_before_every_use(machine: Machine, tmp_path: Path) -> None:
    download = _download("cache", machine, tmp_path)
    path = Path(download.succeeds(resolve=True).path or "")
    requests = len(download.repository.requests)
    download.succeeds(resolve=True)
    assert len(download.repository.requests) == requests
    path.write_bytes(WRONG)
    outcome = machine.offline.run(download.job(resolve=True))
    assert outcome.error == "DownloadError", "offline a wrong file is no better than none"
    assert "set aside" in outcome.log[0]
    path = Path(download.succeeds(resolve=True).path or "")
    path.write_bytes(CONTENT[:-1])
    assert "instead of 300,000" in download.succeeds(resolve=True).log[0]


def test_a_wrong_cached_file_that_cannot_be_moved_is_replaced(
    machine: Machine, tmp_path: Path
) -> None:
    download = _download("cache", machine, tmp_path)
    Path(download.succeeds().path or "").write_bytes(WRONG)
    download.succeeds(fail=Fail("replace", ".corrupt", FORBIDDEN))


def test_a_cached_file_serves_a_model_folder_too(machine: Machine, tmp_path: Path) -> None:
    cached = _download("cache", machine, tmp_path)
    path = cached.succeeds().path
    folder = str(tmp_path / "models")
    job = Job(asdict(cached.style), folder=folder, resolve=True)
    assert machine.offline.run(job).path == path
