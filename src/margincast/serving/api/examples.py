"""Examples in the OpenAPI document: a question and an answer of every route, as the service gives.

``examples.json`` beside this file holds them; a test asks a real service the questions and compares
its answers.
"""

import json
from importlib.resources import files
from typing import Any

EXAMPLES: dict[str, dict[str, Any]] = json.loads(
    files(__package__).joinpath("examples.json").read_text(encoding="utf-8")
)
"""By method and path: ``ask`` (the body, if there is one) and ``answer``."""


def with_examples(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document in which every question and answer has its example."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            example = EXAMPLES.get(f"{method.upper()} {path}")
            if example is None:
                continue
            for content in operation["responses"]["200"]["content"].values():
                content["example"] = example["answer"]
            if "ask" in example:
                for content in operation["requestBody"]["content"].values():
                    content["example"] = example["ask"]
    return document
