"""The work pool's job template: a request says which deployment runs, and nothing about how."""

from typing import Any

JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"name": "{{ name }}", "labels": "{{ labels }}"},
    "variables": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "title": "Name", "description": "Of the process."},
            "labels": {
                "type": "object", "title": "Labels", "description": "Of the process.",
                "additionalProperties": {"type": "string"},
            },
        },
    },
}  # fmt: skip
"""Prefect's own takes command, env and working_dir, each enough to run anything."""
