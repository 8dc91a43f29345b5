"""The stages: cached Prefect tasks that open artifacts, call the library and commit a folder."""
