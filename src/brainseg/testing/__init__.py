"""Our contracts as tests that one's own networks can run."""

from brainseg.testing.model import check_model

__all__ = ["check_model"]
