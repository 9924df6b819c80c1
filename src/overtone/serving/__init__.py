"""The inference server: FastAPI in front of loaded networks.

`models` loads a network and turns bytes into predictions, `batching` gathers requests, `uploads` reads them within
bounds, `guards` refuses what must not come in, `predicting`, `describing` and `open_inference` are the routes, `app`
joins them, and `server` runs the application under uvicorn. Everything here needs the extra `serve`.
"""
