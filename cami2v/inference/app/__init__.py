"""The page of `cami2v app` (docs/app.md). Needs gradio: pip install 'cami2v[app]'."""
