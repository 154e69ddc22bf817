"""A method of an installed package is offered by the pages, under its name, and nothing is loaded to list it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pages_support import APP

LIST = "import sys; from shared.methods import READING; print(READING['loudest_layer'].title, 'my_methods' in sys.modules)"


def test_a_method_of_an_installed_package_is_offered(tmp_path: Path) -> None:
    installed = tmp_path / "my_methods-0.1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 0.1\n")
    (installed / "entry_points.txt").write_text(
        "[vico_lens.methods]\nloudest_layer = my_methods:loudest_layer\nrollout = my_methods:other\n"
    )
    (tmp_path / "my_methods.py").write_text("raise ImportError('listing must not load it')\n")
    paths = [str(tmp_path), str(Path(APP).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    told = subprocess.run(
        [sys.executable, "-c", LIST],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == "Loudest layer False"
