import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip("wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("posexp-*.whl")
    return built


def pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_package_and_every_named_choice(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    choices = {f"posexp/configs/{path.relative_to(ROOT / 'configs')}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert {"posexp/configs/model/tiny.yaml", "posexp/configs/scheme/rope.yaml"} <= choices <= names
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "posexp").rglob("*.py")}
    assert code == {name for name in names if name.endswith(".py")}
    page = {f"posexp/report/web/{path.name}" for path in (ROOT / "posexp" / "report" / "web").iterdir()}
    assert "posexp/report/web/page.html" in page <= names


def test_the_installed_wheel_answers_from_its_own_configs(wheel, tmp_path):
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    (site / "posexp" / "configs" / "scheme" / "rope.yaml").write_text(
        "# rope of the wheel\n_target_: posexp.schemes.rope.Rope\nbase: 123.0\nfraction: 1.0\n"
    )
    away = tmp_path / "away"
    away.mkdir()

    def posexp(*words: str) -> str:
        # PYTHONPATH comes before the checkout, should that be installed in this Python
        environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "posexp", *words]
        done = subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "base: 123.0" in posexp("train", "--cfg", "job", "+scheme=rope")
    assert str(site / "posexp" / "configs") in posexp("train", "--info", "searchpath", "+scheme=rope")
    assert "rope of the wheel" in posexp("schemes")
    assert not list(away.iterdir())
