"""The page: a model's chain live in a browser. `page` and `server` alone know gradio; all else runs without it."""
