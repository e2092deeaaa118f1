"""The application that uvicorn serves. Its only handler returns the JSON object of the request."""

from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.post("/echo")
async def echo(args: dict[str, Any]) -> dict[str, Any]:
    return args
