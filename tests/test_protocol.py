"""The protocol: what its hash depends on, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import refused

from nstlib.errors import SettingError
from nstlib.metrics import protocol as module
from nstlib.metrics.protocol import DEFAULT, Protocol

OTHER = {
    "metrics": ("ssim",), "resolution": None, "crop": "none", "pairs": "order", "ssim_window": "uniform",
    "lpips_backbone": "vgg16", "fid_resize": "tensorflow", "seed": 1, "bootstrap": 10, "set_bootstrap": 10,
    "level": 0.9,
}  # fmt: skip


def test_every_field_and_new_definitions_change_the_hash(monkeypatch):
    assert set(OTHER) == set(Protocol.__dataclass_fields__)
    others = [DEFAULT.changed(**{name: value}) for name, value in OTHER.items()]
    for one in others:
        content = json.loads(json.dumps(one.to_dict()))
        assert Protocol(**{name: content[name] for name in OTHER}) == one
    hashes = {one.hash for one in (DEFAULT, *others)}
    monkeypatch.setattr(module, "DEFINITIONS", module.DEFINITIONS + 1)
    assert len(hashes | {DEFAULT.hash}) == len(OTHER) + 2


def test_the_hash_is_the_same_in_another_process_and_as_it_was():
    code = "from nstlib.metrics.protocol import DEFAULT; print(DEFAULT.hash)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert seen.strip() == DEFAULT.hash == "7ce3ad37c484"


def test_the_order_in_which_metrics_are_named_is_no_matter():
    one = Protocol(metrics=("fid", "ssim", "mse", "ssim"))
    assert one == Protocol(metrics=("mse", "ssim", "fid"))
    assert one.metrics == ("mse", "ssim", "fid")
    assert (one.of_pairs, one.of_sets) == (("mse", "ssim"), ("fid",))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"metrics": ("ssim", "sim")}, "'sim'"),
        ({"metrics": "ssim"}, "'ssim'"),
        ({"metrics": ()}, "no metric"),
        ({"metrics": ("ssim", "fid"), "pairs": "none"}, "no ssim"),
        ({"resolution": 0}, "resolution"),
        ({"crop": "left"}, "crop"),
        ({"sigma": 1.5}, "'sigma'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(wrong, said):
    for build in (lambda: Protocol(**wrong), lambda: DEFAULT.changed(**wrong)):
        with refused(SettingError, match=said):
            build()
