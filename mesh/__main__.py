"""`python -m mesh`: the command, where its script is not on the path."""

from mesh.cli import main

main()
