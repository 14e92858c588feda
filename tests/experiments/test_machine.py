"""Tests of what is recorded about the machine."""

import platform

import pytest

from experiments.jobs.machine import cpu_model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model\t\t: 1\nmodel name\t: AMD EPYC 7R13 \nstepping\t: 1\n"
            "model name\t: another\n",
            "AMD EPYC 7R13",
        ),
        (
            "cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n"
            "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n",
            "AMD EPYC (family 25, model 17)",
        ),
    ],
)
def test_it_is_the_first_processor(tmp_path, text, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    assert cpu_model(cpuinfo) == expected


@pytest.mark.parametrize("text", [None, "", "model name\t:\nstepping\t: 1\n"])
@pytest.mark.parametrize("processor", ["", "arm"])
def test_without_a_name_it_is_the_architecture(tmp_path, monkeypatch, text, processor):
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    assert cpu_model(cpuinfo) == (processor or "aarch64")
