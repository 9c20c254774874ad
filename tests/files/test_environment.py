import json

import pytest

from freectl.errors import InputError
from freectl.files.cache_place import cache_limit, cache_root
from freectl.files.environment import report


def test_report_is_plain_json_with_versions_devices_and_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    result = json.loads(json.dumps(report()))
    assert result["packages"]["torch"]
    assert {"diffusers", "transformers", "peft", "open_clip"} <= set(result["packages"])
    assert result["devices"]["cpu"]["threads"] >= 1
    assert isinstance(result["devices"]["cuda"], list)
    assert result["cache"]["folder"] == str(tmp_path / "home")
    assert result["cache"]["entries"] == result["cache"]["bytes"] == 0
    assert result["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "hf_secret" not in json.dumps(result)
    assert not (tmp_path / "home").exists()


def test_absent_package_is_null(monkeypatch):
    monkeypatch.setattr("freectl.files.environment.DISTRIBUTIONS", {"nothing": "surely-not-installed-anywhere"})
    assert report()["packages"] == {"nothing": None}


def test_cache_folder_is_freectl_home_else_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("FREECTL_HOME", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.setenv("FREECTL_HOME", "")
    assert cache_root().name == "freectl"


def test_cache_limit_is_checked_and_reported(monkeypatch):
    monkeypatch.delenv("FREECTL_CACHE_LIMIT_GB", raising=False)
    assert cache_limit() == 10**10
    monkeypatch.setenv("FREECTL_CACHE_LIMIT_GB", "0.5")
    assert cache_limit() == 5 * 10**8
    for bad in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("FREECTL_CACHE_LIMIT_GB", bad)
        with pytest.raises(InputError, match="FREECTL_CACHE_LIMIT_GB"):
            cache_limit()
        assert "FREECTL_CACHE_LIMIT_GB" in report()["cache"]["error"]
