"""The command line; flows/cli/app.py names all its commands."""
