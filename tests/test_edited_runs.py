"""Edited files: a number as text, a missing sample, a value that no command line takes. Each is one line."""

import json
import os
import signal

import pytest

from attnscope import ViTSpec, explore
from attnscope.analyses.rerun import words_of
from attnscope.analyses.revision import _terminable
from attnscope.core.errors import UsageError
from attnscope.networks.configs import read_config
from attnscope.profiling.peak_files import read_cache
from attnscope.reports.loading import parse_report, read_report


@pytest.fixture(scope="module")
def saved():
    return explore(ViTSpec(dim=12, heads=3, tokens=5), time=True, budget=0.01, device="cpu").to_json()


def edited(saved, value, *path):
    data = json.loads(saved)
    *parents, last = path
    inner = data
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return json.dumps(data)


def test_a_saved_run_is_read(saved):
    assert json.loads(parse_report(saved, "a.json").to_json()) == json.loads(saved)


@pytest.mark.parametrize("text", ["nan", "inf", "1e400", "5"])
@pytest.mark.parametrize(
    "path",
    [
        ("time", "whole_interquartile_mean_s"),
        ("time", "whole_samples_s", 0),
        ("steps", 1, "time", "iqr_s"),
        ("totals", "macs"),
    ],
)
def test_a_number_is_not_text(saved, text, path):
    with pytest.raises(UsageError, match="input should be a valid"):
        parse_report(edited(saved, text, *path), "a.json")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1.0], ("time", "whole_samples_s")),
        ([1.0], ("time", "yardsticks", 0, "samples_s")),
        ([], ("steps", 0, "time", "samples_s")),
        ([-1] * 6, ("time", "process_runs")),
    ],
)
def test_each_run_has_a_sample_everywhere(saved, value, path):
    with pytest.raises(UsageError, match="some of its runs are missing"):
        parse_report(edited(saved, value, *path), "a.json")


@pytest.mark.parametrize("path", [("steps", 1, "macs"), ("totals", "params"), ("steps", 0, "inputs", 0, 1)])
def test_a_count_is_not_negative(saved, path):
    with pytest.raises(UsageError, match=f"{'.'.join(map(str, path))} must not be below 0"):
        parse_report(edited(saved, -1, *path), "a.json")


def test_a_byte_order_mark_is_not_part_of_a_file(saved, tmp_path):
    run, config = tmp_path / "a.json", tmp_path / "a.toml"
    run.write_text(saved, encoding="utf-8-sig")
    config.write_text("[vit]\ndim = 3\n", encoding="utf-8-sig")
    assert read_report(run) == parse_report(saved, "a.json")
    assert read_config(config, "vit", ["dim"]) == {"dim": 3}


@pytest.mark.parametrize(
    ("content", "got"),
    [("[[vit]]\ndim = 3", r"\[\[vit\]\]"), ("vit = 3", "vit = …"), ("[]", "not valid"), ("", "nothing")],
)
def test_a_config_needs_a_table_of_the_command(tmp_path, content, got):
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(UsageError, match=got):
        read_config(tmp_path / "a.toml", "vit", ["dim"])


@pytest.mark.parametrize("device", ["cpu\x00", "\udc80", "c" * 300_000])
def test_a_value_that_no_process_takes_is_a_line(saved, device):
    report = parse_report(saved, "a.json")
    report.environment["device"] = device
    with pytest.raises(UsageError, match="cannot be run again"):
        words_of(report, "a.json", 0.1)


@pytest.mark.parametrize("attention", [["vit"], {"a": 1}, None])
def test_an_attention_without_a_name_is_a_line(saved, attention):
    report = parse_report(saved, "a.json")
    report.spec["attention"] = attention
    with pytest.raises(UsageError, match="is unknown"):
        words_of(report, "a.json", 0.1)


@pytest.mark.parametrize("number", ["9" * 5000, f"0x{'f' * 5000}"])
def test_an_integer_of_a_config_with_too_many_digits_is_a_line(tmp_path, number):
    (tmp_path / "a.toml").write_text(f"[vit]\ndim = {number}\n")
    with pytest.raises(UsageError):
        read_config(tmp_path / "a.toml", "vit", ["dim"])


def test_a_config_of_very_many_levels_is_a_line(tmp_path):
    (tmp_path / "a.toml").write_text(".".join("a" * 200_000) + " = 1\n")
    with pytest.raises(UsageError, match="at most 65,536 characters"):
        read_config(tmp_path / "a.toml", "vit", ["dim"])


def test_a_pipe_in_place_of_the_peaks_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "peaks.json")
    assert read_cache(tmp_path / "peaks.json") == {}


def test_a_handler_of_the_command_line_stays():
    def own(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, own)
    try:
        with _terminable():
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    with _terminable():
        assert signal.getsignal(signal.SIGTERM) != before


def test_a_limit_with_too_many_digits_is_a_line():
    from attnscope.analyses.gate import read_sizes

    with pytest.raises(UsageError, match="must be a number"):
        read_sizes(f"macs={'1' * 5000}")
