"""Fixtures that tests of every tier share."""

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser):
    """`--fuzz 10000` opens so many mutated files of each kind instead of a sample."""
    parser.addoption("--fuzz", type=int, default=200, help="mutated files of each kind to open (tests/attacks)")


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data sets and models beside the repository; the test is skipped where there is none."""
    if not DATA.is_dir():
        pytest.skip(f"the real data folder is not there: looked for ../shared/data beside the repository ({DATA.name})")
    return DATA


@pytest.fixture(scope="session")
def pocket_clip():
    """The embedded model, exported once for all tests of a process: who changes it takes a copy."""
    from compress.models.loading import load
    from compress.recipe.sources import NamedModel

    return load(NamedModel(source="pocket-clip"), offline=True)


@pytest.fixture
def tiny_encoder(tmp_path):
    """A hand-made dual encoder, read from ONNX files as any other."""
    import tiny_towers

    folder = tmp_path / "tiny"
    folder.mkdir()
    return tiny_towers.encoder(folder)
