"""Where weights come from: timm, a hub, a folder and a bare file, with the preprocessing and the labels that each tells of."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save, save_file

from bench.errors import DataError, UsageError
from bench.initialisation import USUAL, Init
from bench.models import sources, weights_file
from bench.models.trunk import TrunkName
from bench.storage import offline

COLOUR = TrunkName.parse("timm:test_resnet,preprocessing=rgb")
CONFIG: dict[str, Any] = {
    "architecture": "test_resnet",
    "num_classes": 1000,
    "pretrained_cfg": {
        "tag": "mae", "input_size": [3, 96, 96], "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bicubic",
        "num_classes": 1000, "first_conv": "conv1.0", "classifier": "fc",
    },
}  # fmt: skip


def opened(text: str, trunk: TrunkName = COLOUR) -> tuple[sources.Source, Any]:
    init = Init.parse(f"a={text}")
    source = sources.open_source(init)
    return source, sources.weights_of(init, source, trunk, "name", False)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return dict(timm.create_model("test_resnet").state_dict())


class Runs:
    """An object whose pickle makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


class Hub:
    """A server that answers as the hub does for the files it has, by path, and remembers what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = hub.files.get(self.path)
                self.send_response(200 if content is not None else 404)
                if content is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                else:
                    self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                    self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, repository: str, **content: bytes) -> None:
        for name, one in content.items():
            self.files[f"/{repository}/resolve/main/{name.replace('__', '.')}"] = one


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    yield made
    made.server.shutdown()
    made.server.server_close()


ASK = """
import json, sys
from bench.errors import BenchError
from bench.initialisation import Init
from bench.models import sources
from bench.storage import offline

if offline.is_forbidden():
    offline.forbid()
for text in sys.argv[1:]:
    try:
        source = sources.open_source(Init.parse("a=" + text))
        print(json.dumps([source.said, source.trunk, source.supervision, list(source.config["mean"]), source.sha256]))
    except BenchError as error:
        print(json.dumps([error.exit_code, str(error)]))
"""


def ask(hub: Hub, place: Path, *texts: str, **variables: str) -> list[Any]:
    """Open sources in a process whose hub is ours and whose cache is new; return a line each."""
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "0", **variables}
    done = subprocess.run([sys.executable, "-c", ASK, *texts], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.integration
def test_weights_of_timm_are_fetched_once_and_taken_from_the_cache_offline(
    hub: Hub, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    hub.add("timm/test_resnet.r160_in1k", model__safetensors=save(state))
    texts = ("timm:test_resnet.r160_in1k", "timm:test_resnet")
    first, untagged = ask(hub, tmp_path, *texts)
    mean = list(timm.create_model("test_resnet").pretrained_cfg["mean"])
    assert first[:4] == ["timm:test_resnet.r160_in1k", "timm:test_resnet,preprocessing=rgb", "ImageNet-1k labels", mean]
    assert first[4] == weights_file.digest(state) and untagged == first
    hub.server.shutdown()
    hub.server.server_close()
    cached, other = ask(hub, tmp_path, texts[0], "timm:resnet10t", PRETEXT_BENCH_OFFLINE="1", HF_ENDPOINT="https://hub.invalid")
    assert cached == first
    assert other[0] == 4 and other[1].startswith("the weights timm:resnet10t could not be fetched (--offline (PRETEXT_BENCH_OFF")
    (gone,) = ask(hub, tmp_path, "timm:resnet10t")
    assert gone[0] == 4 and "could not be fetched" in gone[1] and "\n" not in gone[1]


@pytest.mark.integration
def test_weights_of_a_hub_come_with_their_preprocessing_and_a_pickle_of_a_hub_runs_nothing(
    hub: Hub, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    hub.add("me/net", model__safetensors=save(state), config__json=json.dumps(CONFIG).encode())
    torch.save({"state_dict": state, "x": Runs(tmp_path / "canary")}, tmp_path / "evil.bin")
    hub.add("evil/net", pytorch_model__bin=(tmp_path / "evil.bin").read_bytes(), config__json=json.dumps(CONFIG).encode())
    net, alike, evil, missing = ask(hub, tmp_path, "hf_hub:me/net", "hf-hub:me/net", "hf_hub:evil/net", "hf_hub:me/none")
    assert net[:4] == ["hf_hub:me/net", "timm:test_resnet,preprocessing=rgb", "none", [0.5, 0.4, 0.3]]
    assert net[4] == weights_file.digest(state) == alike[4]
    assert evil[0] == 3 and "hf_hub:evil/net could run a program when they are read, and are refused" in evil[1]
    assert not (tmp_path / "canary").exists()
    assert missing[0] == 4 and "hf_hub:me/none could not be fetched (404" in missing[1]


def test_an_older_timm_that_asks_torch_to_run_a_pickle_is_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(Runs(tmp_path / "canary"), tmp_path / "a.bin")

    def create_model(*_: Any, **__: Any) -> Any:
        return torch.load(tmp_path / "a.bin", weights_only=False)

    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(DataError, match="could run a program"):
        sources.open_source(Init.parse("a=hf_hub:me/net"))
    assert not (tmp_path / "canary").exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    with pytest.raises(pickle.UnpicklingError), sources._weights_only():
        create_model()


def test_a_wrong_tag_lists_those_there_are_and_a_wrong_name_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"timm has no weights resnet10t\.a9_in1k; it has resnet10t\.c3_in1k\."):
        opened("timm:resnet10t.a9_in1k")
    with pytest.raises(UsageError, match="unknown timm encoder 'resnet10'; did you mean 'resnet10t'"):
        opened("timm:resnet10")
    with pytest.raises(UsageError, match=r"timm has no weights resnet10t\.; it has"):
        opened("timm:resnet10t.")


def folder_of(place: Path, state: dict[str, torch.Tensor], config: Any) -> Path:
    save_file(state, place / "model.safetensors")
    (place / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return place


def test_a_folder_of_timm_tells_its_preprocessing(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    folder_of(tmp_path, state, CONFIG)
    for text in (f"local-dir:{tmp_path}", str(tmp_path)):
        source, weights = opened(text)
        assert (source.trunk, source.supervision) == (str(COLOUR), "none")
        assert (weights.mean, weights.std, weights.size) == ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7), 96)
        assert weights.interpolation == "bicubic"
    _, given = opened(f"{tmp_path},normalize=imagenet,size=64,interpolation=bilinear")
    assert (given.mean, given.std, given.size, given.interpolation) == (*USUAL["imagenet"], 64, "bilinear")
    with pytest.raises(UsageError, match=r"is no folder; local-dir: takes one with config\.json and weights"):
        opened(f"local-dir:{tmp_path / 'model.safetensors'}")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        opened(str(tmp_path))


@pytest.mark.parametrize(
    "config",
    [
        "[1]", "{", "{\"pretrained_cfg\": 5}", "\xff",
        *({**CONFIG, "pretrained_cfg": {**CONFIG["pretrained_cfg"], **change}} for change in (
            {"mean": "abc"}, {"mean": [1, 2, {}]}, {"std": [0, 0, 0]}, {"std": [1, -1, 1]}, {"std": [1, 1]}, {"input_size": 7},
            {"mean": [float("nan")] * 3}, {"input_size": ["x"]}, {"mean": 5}, {"std": [float("nan")] * 3},
        )),
    ],
)  # fmt: skip
def test_a_folder_with_a_damaged_configuration_is_refused(tmp_path: Path, state: dict[str, torch.Tensor], config: Any) -> None:
    folder_of(tmp_path, state, config)
    with pytest.raises(DataError) as caught:
        opened(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_bare_file_needs_a_normalisation_and_each_of_those_listed_works_when_typed(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "a.pth"
    torch.save(state, path)
    with pytest.raises(UsageError, match="does not say how its images were normalised") as caught:
        opened(str(path))
    said = str(caught.value)
    listed = [word for word in said.replace(",", " ").split() if word.startswith("normalize=")]
    assert len(listed) == len(USUAL)
    for text in listed:
        _, weights = opened(f"{path},{text}")
        assert (weights.mean, weights.std) == USUAL[text.removeprefix("normalize=")]
        for numbers in (weights.mean, weights.std):
            assert "/".join(f"{one:g}" for one in (numbers if len(set(numbers)) > 1 else numbers[:1])) in said
    source, weights = opened(f"{path},mean=0.1/0.2/0.3,std=0.5")
    assert (weights.mean, weights.std, source.supervision, source.trunk) == ((0.1, 0.2, 0.3), (0.5,) * 3, "unknown", "")
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_lightness_has_no_normalisation_to_choose(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, tmp_path / "a.pth")
    lightness = TrunkName.parse("timm:test_resnet")
    assert opened(str(tmp_path / "a.pth"), lightness)[1].mean == ()
    with pytest.raises(UsageError, match="takes lightness, which has no mean and std to choose"):
        opened(f"{tmp_path / 'a.pth'},normalize=half", lightness)


@pytest.mark.parametrize("text", ["nowhere.pth", "local-dir:nowhere", "nowhere:net", "s3:bucket", "/", "timm:"])
def test_what_is_not_there_is_said(text: str) -> None:
    with pytest.raises(UsageError):
        opened(text)


@pytest.mark.parametrize(
    ("tag", "told"),
    [
        ("tv_in1k", "ImageNet-1k labels"), ("msft_in1k", "ImageNet-1k labels"), ("fcmae", "none"), ("lvd142m", "none"),
        ("in1k_ijepa", "none"), ("mae_in1k_ft_in1k", "ImageNet-1k labels"), ("fb_inw21k", "ImageNet-22k labels"),
        ("fcmae_ft_in22k_in1k", "ImageNet-22k labels and ImageNet-1k labels"), ("ns_jft_in1k", "ImageNet-1k labels"),
        ("fb_ssl_yfcc100m_ft_in1k", "ImageNet-1k labels"), ("openai", "labels or texts of the web"), ("seer", "none"),
        ("swag_lc_in1k", "ImageNet-1k labels and labels or texts of the web"), ("mim_in22k", "labels or texts of the web"),
        ("fb_swsl_ig1b_ft_in1k", "ImageNet-1k labels and labels or texts of the web"), ("", "unknown"), ("my_tag", "unknown"),
        ("eupe_lvd1689m", "labels or texts of the web"), ("ft_in1k", "ImageNet-1k labels"),
    ],
)  # fmt: skip
def test_a_tag_tells_which_labels_were_used(tag: str, told: str) -> None:
    assert sources.supervision_of(tag) == told


def test_every_tag_of_timm_with_the_name_of_a_labelled_data_set_behind_ft_is_supervised() -> None:
    tags = {name.partition(".")[2] for name in timm.list_pretrained()}
    told = {tag: sources.supervision_of(tag) for tag in tags}
    assert all("ImageNet" in told[tag] for tag in tags if "ft_in" in tag)
    assert sum(one == "unknown" for one in told.values()) < 0.05 * len(tags)


def test_offline_asks_the_hubs_client_to_be_offline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(offline.HUB_VARIABLE, "0")
    monkeypatch.setattr(offline, "_guarded", True)
    offline.forbid()
    assert os.environ[offline.HUB_VARIABLE] == "1"
