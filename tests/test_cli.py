"""The command: a picture from the demo, one line and exit code 2 for what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from brainseg.cli import demo


def test_the_demo_writes_a_picture_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(tmp_path / "new" / "folder")
    picture = tmp_path / "new" / "folder" / "phantom.png"
    assert str(picture) in capsys.readouterr().out
    with Image.open(picture) as image:
        assert image.size[0] > 600


@pytest.mark.parametrize("arguments", [["dem"], ["demo", "--outpt", "x"], ["demo", "--output", __file__], []])
def test_wrong_arguments_exit_with_two_and_no_traceback(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from brainseg.cli import main; main()", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "error:" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_its_extra_the_command_names_it() -> None:
    code = "import sys; sys.modules['jsonargparse'] = None; from brainseg.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == 'brainseg needs jsonargparse: pip install "brainseg-torch[train]"'
