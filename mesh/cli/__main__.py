"""`python -m mesh.cli`: the command without its script, for processes that start others of their kind."""

from mesh.cli import main

main()
