"""What identifies a study's inputs: digests of the code, of weights and of adapters.

Knows files. Knows nothing of torch.
"""

from pathlib import Path

from em_interp import hub
from em_interp.records import file_digest

TOKENS = ("tokenizer*.json", "*.jinja", "*.model")  # what decides a prompt's tokens


def code() -> str:
    """The package's own code but the report, which is remade every time."""
    here = Path(__file__).resolve().parents[1]
    return file_digest(
        *(
            file
            for file in sorted([*here.rglob("*.py"), *here.rglob("*.yaml")])
            if "report" not in file.relative_to(here).parts
        )
    )


def base(home: Path) -> dict[str, str]:
    """A base's weights, tokenizer and configuration.

    A hub snapshot is its commit: the weights are not read for it.
    """
    at_hub = hub.repository(home) is not None
    weights = home.name if at_hub else file_digest(*sorted(home.glob("*.safetensors")))
    tokens = sorted(file for one in TOKENS for file in home.glob(one))
    return {
        "base": weights,
        "tokenizer": file_digest(*tokens),
        "config": file_digest(home / "config.json"),
    }


def adapter(folder: Path) -> str:
    """An organism's weights and configuration."""
    return file_digest(*sorted(folder.glob("adapter_*")))
