"""The protocol: what its hash depends on, what it refuses, and when two tables may be compared."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nstlib.errors import SettingError
from nstlib.metrics import protocol as module
from nstlib.metrics.protocol import CHOICES, DEFAULT, METRICS, Protocol

OTHER = {
    "metrics": ("ssim",), "resolution": None, "crop": "none", "pairs": "order", "ssim_window": "uniform",
    "lpips_backbone": "vgg16", "fid_resize": "tensorflow", "seed": 1, "bootstrap": 10, "set_bootstrap": 10,
    "level": 0.9,
}  # fmt: skip

protocols = st.builds(
    Protocol,
    metrics=st.lists(st.sampled_from(list(METRICS)), min_size=1).map(tuple),
    resolution=st.none() | st.integers(1, 4096),
    pairs=st.sampled_from(["name", "order"]),
    seed=st.integers(0, 2**40),
    level=st.floats(0.01, 0.99),
    **{name: st.sampled_from(choices) for name, choices in CHOICES.items() if name != "pairs"},
)


@given(protocols)
def test_a_protocol_survives_json(protocol):
    again = Protocol.from_dict(json.loads(json.dumps(protocol.to_dict())))
    assert again == protocol
    assert again.hash == protocol.hash


@given(protocols, protocols)
def test_hashes_agree_exactly_if_the_protocols_do(one, other):
    assert (one.hash == other.hash) == (one == other)


def test_every_field_changes_the_hash():
    assert set(OTHER) == {field.name for field in fields(Protocol)}
    hashes = {DEFAULT.changed(**{name: value}).hash for name, value in OTHER.items()} | {DEFAULT.hash}
    assert len(hashes) == len(OTHER) + 1


def test_new_definitions_change_the_hash(monkeypatch):
    before = DEFAULT.hash
    monkeypatch.setattr(module, "DEFINITIONS", module.DEFINITIONS + 1)
    assert DEFAULT.hash != before


def test_the_hash_has_12_hex_digits_and_is_the_same_in_another_process():
    code = "from nstlib.metrics.protocol import DEFAULT; print(DEFAULT.hash)"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert seen.strip() == DEFAULT.hash
    assert len(DEFAULT.hash) == 12
    int(DEFAULT.hash, 16)


def test_the_order_in_which_metrics_are_named_is_no_matter():
    one = Protocol(metrics=("fid", "ssim", "mse", "ssim"))
    assert one == Protocol(metrics=("mse", "ssim", "fid"))
    assert one.metrics == ("mse", "ssim", "fid")
    assert (one.of_pairs, one.of_sets) == (("mse", "ssim"), ("fid",))


def test_fields_left_out_of_a_dictionary_have_their_defaults():
    assert Protocol.from_dict({}) == DEFAULT
    assert Protocol.from_dict({"seed": 3}) == DEFAULT.changed(seed=3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"metrics": ("ssim", "sim")}, "'sim'"),
        ({"metrics": "ssim"}, r"metrics=\('ssim',\)"),
        ({"metrics": 3}, "list of names"),
        ({"metrics": ([],)}, "no metric"),
        ({"metrics": ()}, "No metric"),
        ({"metrics": ("ssim", "fid"), "pairs": "none"}, "no ssim"),
        ({"resolution": 0}, "resolution"),
        ({"resolution": 256.0}, "resolution"),
        ({"resolution": True}, "resolution"),
        ({"seed": -1}, "seed"),
        ({"seed": None}, "seed"),
        ({"bootstrap": 0}, "bootstrap"),
        ({"set_bootstrap": 0}, "set_bootstrap"),
        ({"level": 95}, "level"),
        ({"level": 1.0}, "level"),
        *(({name: "other"}, name) for name in CHOICES),
        *(({name: None}, name) for name in CHOICES),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(wrong, said):
    for build in (lambda: Protocol(**wrong), lambda: DEFAULT.changed(**wrong)):
        with pytest.raises(SettingError, match=said) as caught:
            build()
        assert str(caught.value).endswith(".")


def test_unknown_fields_and_other_definitions_are_refused():
    with pytest.raises(SettingError, match="'sigma'"):
        Protocol.from_dict({"sigma": 1.5})
    with pytest.raises(SettingError, match="'sigma'"):
        DEFAULT.changed(sigma=1.5)
    with pytest.raises(SettingError, match="measure the pictures again"):
        Protocol.from_dict({**DEFAULT.to_dict(), "definitions": 0})
    with pytest.raises(SettingError, match="dictionary"):
        Protocol.from_dict(["ssim"])
