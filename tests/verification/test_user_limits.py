from __future__ import annotations

import pytest

from vit_deploy.errors import ConfigError
from vit_deploy.verification.tolerances import DEFAULTS, Limits, Tolerance
from vit_deploy.verification.user_limits import parse_limits, read_limits

TABLE = """
[project]
name = "somebody's"

[tool.vit-deploy.verify]
kl = 0.05
snr_db = 22
allow_tf32 = true

[tool.vit-deploy.verify.int8]
snr_db = 25
flips = "none"
"""


@pytest.fixture
def project(tmp_path):
    def write(text):
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        inner = tmp_path / "release" / "tiny"
        inner.mkdir(parents=True, exist_ok=True)
        return inner

    return write


def test_the_nearest_table_upwards_counts_the_precisions_own_more_and_the_command_line_most(project):
    found = read_limits(project(TABLE))
    assert found.allow_tf32 and found.source.name == "pyproject.toml"
    common = found.apply(DEFAULTS["int4"], "int4").held()
    assert common == DEFAULTS["int4"].held() | {"kl": 0.05, "snr_db": 22.0}
    own = found.apply(DEFAULTS["int8"], "int8").held()
    assert own["snr_db"] == 25 and own["kl"] == 0.05 and "flips" not in own
    asked = Limits(found.common, found.own, parse_limits(["snr_db=30", "flips = 0.5"]))
    assert asked.apply(DEFAULTS["int8"], "int8").held() == own | {"snr_db": 30.0, "flips": 0.5}


def test_without_a_file_or_a_table_nothing_changes(project, tmp_path):
    assert read_limits(project("[tool.ruff]\nline-length = 120\n")).apply(Tolerance(max_abs=1), "fp32").max_abs == 1
    assert Limits().apply(DEFAULTS["int8"], "int8") == DEFAULTS["int8"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[tool.vit-deploy.verify]\nmaxabs = 1\nsnr = 2", "no such metric: maxabs, snr"),
        (
            "[tool.vit-deploy.verify]\nsnr_db = true\nkl = 'low'\nrms = nan",
            "snr_db is True, kl is 'low', rms is nan; expected a finite number",
        ),
        ("[tool.vit-deploy.verify.int3]\nsnr_db = 1", r"\[tool.vit-deploy.verify.int3\] is for no precision"),
        ("[tool.vit-deploy.verify]\nallow_tf32 = 1", "allow_tf32 is 1"),
        ("[tool.vit-deploy]\nverify = 3", "is no table"),
        ("tool = 3", "is no table"),
        ("[tool.vit-deploy.verify]\nkl = 1" + 400 * "0", "kl is 10+; expected a finite number"),
        ("[tool.vit-deploy.verify\n", "cannot be read"),
    ],
)
def test_what_is_wrong_in_the_table_is_named(project, table, said):
    with pytest.raises(ConfigError, match=said) as caught:
        read_limits(project(table))
    assert "pyproject.toml" in caught.value.message and caught.value.fix


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1e-4", "--tolerance is '1e-4'"),
        ("max=1", "no such metric: max"),
        ("kl=x", "kl is 'x'; expected a finite number"),
        ("kl=inf", "kl is inf"),
        ("kl=-1", "kl = -1, and it lies between 0 and inf"),
        ("cosine=1.1", "cosine = 1.1, and it lies between -1 and 1"),
        ("flips=2", "flips = 2, and it lies between 0 and 1"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_named(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_limits([text])


def test_lifting_every_limit_is_refused():
    with pytest.raises(ConfigError) as caught:
        Limits(asked=parse_limits(["max_abs=none"])).apply(Tolerance(max_abs=1), "fp32")
    assert caught.value.message == "no metric of fp32 is held to a limit, so that everything finite would pass"
    assert caught.value.fix == "leave a limit, such as max_abs"
