"""This library's worker: each function is a command."""

import inspect

import functions
from snakepit_bridge import Worker

worker = Worker()
for _, function in inspect.getmembers(functions, inspect.isfunction):
    worker.command(function)

if __name__ == "__main__":
    worker.run()
