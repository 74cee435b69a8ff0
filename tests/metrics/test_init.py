"""What the layer asks for when torchmetrics is missing."""

import subprocess
import sys


def test_a_missing_torchmetrics_is_named_with_the_extra_that_brings_it() -> None:
    code = "import sys; sys.modules['torchmetrics'] = None; import brainseg.metrics"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1] == (
        'ImportError: metrics need torchmetrics: pip install "brainseg-torch[metrics]"'
    )
