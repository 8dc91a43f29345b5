"""Writers behind a server: any that speaks OpenAI's chat completions."""
