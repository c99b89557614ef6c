from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vit_deploy.core.cache import cache_folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("VIT_DEPLOY_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "usual"),
    [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")],
)
def test_caches_lie_where_the_system_has_them(home, monkeypatch, platform, usual):
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == home / usual / "vit-deploy"


@pytest.mark.parametrize(("platform", "variable"), [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")])
def test_the_systems_own_variable_is_respected(monkeypatch, tmp_path, platform, variable):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "vit-deploy"


def test_a_relative_folder_of_that_variable_is_ignored(home, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder() == home / ".cache" / "vit-deploy"


def test_a_folder_of_ones_own_wins_and_nothing_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert not (tmp_path / "mine").exists()
