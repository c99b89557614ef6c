"""Names of models, and what cards say of licences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vit_deploy.checkpoints.hub.card import Licence, front_matter, licence_of
from vit_deploy.checkpoints.hub.names import Name, parse
from vit_deploy.core.origin import check_licence
from vit_deploy.errors import LicenceError


@pytest.mark.parametrize(
    ("text", "repository", "file", "revision"),
    [
        ("hf:google/vit-base-patch16-224", "google/vit-base-patch16-224", "", "main"),
        ("hf:google/vit@v1.0", "google/vit", "", "v1.0"),
        ("hf:google/vit@refs/pr/3", "google/vit", "", "refs/pr/3"),
        ("hf:org/vit/model.safetensors", "org/vit", "model.safetensors", "main"),
        ("hf:org/vit/sub/last.pth@0123abc", "org/vit", "sub/last.pth", "0123abc"),
        ("hf:/org/vit", "org/vit", "", "main"),  # what a path makes of hf://org/vit
        ("timm:vit_tiny_patch16_224.augreg_in21k", "timm/vit_tiny_patch16_224.augreg_in21k", "", "main"),
        ("timm:vit.tag@main", "timm/vit.tag", "", "main"),
        ("keras:vit_base_patch16_224_imagenet", "keras/vit_base_patch16_224_imagenet", "", "main"),
    ],
)
def test_names(text: str, repository: str, file: str, revision: str) -> None:
    assert parse(text) == Name(text, repository, file, revision)


@pytest.mark.parametrize("text", ["tiny", "model.safetensors", "runs/hf/x", "C:/models/vit", "C:hf", "s3:bucket/key"])
def test_what_is_a_path(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["license: apache-2.0"], "apache-2.0"),
        (["license: 'mit'  # as before"], "mit"),
        (["license: mit # as before"], "mit"),
        (["license:", "- mit", "- apache-2.0"], "mit, apache-2.0"),
        (["license:", "  - mit", "tags:", "  - vision"], "mit"),
        (["license: [mit, 'apache-2.0']"], "mit, apache-2.0"),
        (["license: other", "license_name: dinov3-license"], "dinov3-license"),
        (["license: other"], "other"),
        (["license: null"], ""),
        (["model-index:", "- name: x", "  license: mit"], ""),
        (["tags: []"], ""),
    ],
)
def test_the_licence_of_a_card(tmp_path: Path, lines: list[str], expected: str) -> None:
    (tmp_path / "README.md").write_text("\n".join(["---", *lines, "---", "license: gpl-3.0"]), encoding="utf-8")
    assert licence_of(tmp_path).name == expected


def test_a_card_with_the_line_ends_of_windows_and_a_link(tmp_path: Path) -> None:
    text = "\ufeff---\r\nlicense: other\r\nlicense_name: mine\r\nlicense_link: LICENSE.md\r\n---\r\n# Card\r\n"
    (tmp_path / "README.md").write_bytes(text.encode())
    assert licence_of(tmp_path) == Licence("mine", "LICENSE.md")


def test_the_config_of_timm_states_a_licence_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"license": "cc-by-nc-4.0"}}))
    assert licence_of(tmp_path) == Licence("cc-by-nc-4.0")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert licence_of(tmp_path) == Licence("mit")


@pytest.mark.parametrize("text", ["", "# no front matter\nlicense: mit", "---\nlicense: mit", "--- license: mit ---"])
def test_a_card_without_front_matter_says_nothing(text: str) -> None:
    assert front_matter(text) == {}


def test_every_one_of_several_licences_has_to_be_required() -> None:
    check_licence("mit, apache-2.0", ["MIT", "apache-2.0"], "it")
    with pytest.raises(LicenceError, match=r"the licence of it is mit, cc-by-nc-4\.0; required is mit"):
        check_licence("mit, cc-by-nc-4.0", ["mit"], "it")
    check_licence("", [], "it")
