"""The engine: core, scheduler, stores, embedded server and command line. Users import `mesh_sdk`; read `engine.py` first."""

__version__ = "0.1.0"
