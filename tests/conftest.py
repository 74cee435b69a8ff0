"""What all tests share: where the goldens lie, and how hypothesis draws."""

from pathlib import Path

import hypothesis

SHARED = Path(__file__).parents[2] / "shared"

hypothesis.settings.register_profile("default", deadline=None, max_examples=10, derandomize=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)
hypothesis.settings.load_profile("default")
