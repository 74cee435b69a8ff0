"""The option `--config` of commands that train."""

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from brainseg.cli.output import stop
from brainseg.cli.parser import Parser
from brainseg.training.config import CONFIGS, shipped_configs


class NamedConfig(ActionConfigFile):
    """A YAML file, or the name of a configuration that comes with the package."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Reads it."""
        shipped = values in shipped_configs() and not Path(values).is_file()
        path = CONFIGS / f"{values}.yaml" if shipped else Path(values)
        if not path.is_file():
            stop(f"there is no configuration {values}; give a YAML file, or {' or '.join(shipped_configs())}")
        try:
            yaml.safe_load(path.read_text())
        except (ValueError, yaml.YAMLError) as error:
            stop(f"{values} is no YAML: {error}")
        super().__call__(parser, cfg, str(path), option_string)  # type: ignore[no-untyped-call]


def add_config_option(parser: Parser) -> None:
    """A configuration by file or name, which options after it override."""
    parser.add_argument(
        "--config",
        action=NamedConfig,
        help=f"YAML file, or one of {', '.join(shipped_configs())}; options after it override it",
    )
